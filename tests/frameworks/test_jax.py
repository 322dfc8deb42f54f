"""convt for JAX arrays: the bits of the call on NumPy arrays, under every transformation."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import convt
from convt.trilinear import Problem
from frameworks.forms import CASES, PLAIN, Case, expected, run_page, three
from oracles import DTYPES, assert_identical
from processes import python

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy
lax = jax.lax

import convt.jax  # noqa: E402
from convt.jax import frame  # noqa: E402

pytestmark = (
    pytest.mark.slow
)  # JAX takes a second to import, and each problem half a second to trace


@pytest.fixture(autouse=True)
def _float64() -> Any:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def arrays(case: Case, dtype: Any = np.float64) -> Any:
    return tuple(jnp.asarray(array) for array in case.arrays(dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_of_numpy(dtype: Any, case: Case) -> None:
    found = jax.jit(lambda *a: three(convt, case, *a))(*arrays(case, dtype))
    for actual, wanted in zip(found, expected(case, dtype), strict=True):
        assert isinstance(actual, jax.Array)
        assert_identical(np.asarray(actual), wanted)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_xla_s_own_convolution_means_the_same(case: Case) -> None:
    with convt.jax.native_kernels():
        text = jax.jit(lambda *a: three(convt, case, *a)).lower(*arrays(case)).as_text()
        found = three(convt, case, *arrays(case))
    assert "convt_trilinear" not in text
    for actual, wanted in zip(found, expected(case, np.float64), strict=True):
        assert_identical(np.asarray(actual), wanted)


def layer(case: Case, x: Any, w: Any, b: Any) -> Any:
    return convt.conv3d_transpose(
        x, w, case.output_shape, *case.arguments, bias=b, groups=case.groups
    )


SMALL = Case((1, 2, 1), (1, 3, 1), (1, 2, 1), into=1, out=1)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("case", "order"), [(SMALL, 2), (CASES[2], 1)], ids=str)
def test_derivatives_by_finite_differences(case: Case, order: int, native: bool) -> None:
    from jax.test_util import check_grads

    def function(*a: Any) -> Any:
        return jnp.sin(layer(case, *a))

    if native:
        with convt.jax.native_kernels():
            check_grads(function, arrays(case), order=1, modes=("rev",))
    else:
        check_grads(function, arrays(case), order=order, modes=("fwd", "rev"))


def lax_layer(x: Any, w: Any) -> Any:
    return lax.conv_transpose(
        x,
        w,
        (2, 2, 2),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        transpose_kernel=True,
    )


def test_result_and_gradients_are_those_of_lax() -> None:
    rng = np.random.default_rng(1)
    x, w = (jnp.asarray(rng.standard_normal(s)) for s in ((2, 3, 2, 4, 3), (3, 4, 2, 5, 3)))

    def loss(function: Any) -> Any:
        return jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(function(x, w))), (0, 1))

    ours = loss(lambda x, w: convt.conv3d_transpose(x, w, None, 2))(x, w)
    theirs = loss(lax_layer)(x, w)
    for actual, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "axes", [(0, None, None), (1, None, None), (None, 2, None), (0, 0, 0), (None, None, 0)]
)
def test_vmap_is_a_loop(axes: Any) -> None:
    case = CASES[1]
    mapped = [
        a if axis is None else jnp.stack([a, a + 1, 2 * a], axis)
        for a, axis in zip(arrays(case), axes, strict=True)
    ]
    found = jax.vmap(lambda *a: three(convt, case, *a), axes)(*mapped)
    for i in range(3):
        one = [a if axis is None else a.take(i, axis) for a, axis in zip(mapped, axes, strict=True)]
        for actual, wanted in zip(found, three(convt, case, *one), strict=True):
            assert_identical(np.asarray(actual[i]), np.asarray(wanted))


def test_a_shared_filter_folds_the_mapped_axis_into_the_batch() -> None:
    x, w, b = arrays(PLAIN)
    text = str(jax.make_jaxpr(jax.vmap(lambda x: layer(PLAIN, x, w, b)))(jnp.stack([x, x])))
    assert "scan" not in text
    assert text.count("convt_output") == 1


def test_gradients_of_each_example() -> None:
    x, w, b = arrays(PLAIN)
    gradient = jax.grad(lambda w, x: jnp.sum(layer(PLAIN, x, w, b) ** 2))
    found = jax.jit(jax.vmap(gradient, (None, 0)))(w, jnp.stack([x, x - 1]))
    for actual, example in zip(found, (x, x - 1), strict=True):
        np.testing.assert_allclose(actual, gradient(w, example), rtol=1e-12)


def test_checkpoint_scan_and_hessian() -> None:
    x, w, b = arrays(Case((1, 2, 1), (1, 2, 1), 1, into=2, out=2))

    def step(x: Any, _: Any) -> tuple[Any, None]:
        return jnp.tanh(convt.conv3d_transpose(x, w, x.shape, 1, bias=b)), None

    def loss(x: Any, step: Any = step) -> Any:
        return jnp.sum(lax.scan(step, x, None, length=3)[0])

    checked = jax.grad(lambda x: loss(x, jax.checkpoint(step)))(x)
    np.testing.assert_allclose(checked, jax.grad(loss)(x), rtol=1e-12)
    hessian = np.asarray(jax.hessian(loss)(x)).reshape(x.size, x.size)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


def test_the_kernels_run_on_xla_s_own_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    compute = Problem.compute

    def watch(self: Any, kind: Any, a: Any, b: Any, bias: Any = None, out: Any = None) -> Any:
        seen.append([array.ctypes.data for array in (a, b, bias, out)])
        return compute(self, kind, a, b, bias, out)

    monkeypatch.setattr(Problem, "compute", watch)
    given = arrays(PLAIN)
    compiled = jax.jit(lambda *a: layer(PLAIN, *a)).lower(*given).compile()
    assert "callback" not in compiled.as_text()
    result = compiled(*given).block_until_ready()
    assert seen == [[array.unsafe_buffer_pointer() for array in (*given, result)]]


def test_an_error_in_the_handler_is_one_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    given = arrays(PLAIN)
    function = jax.jit(lambda *a: layer(PLAIN, *a))
    wanted = function(*given)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room for a slab")

    with monkeypatch.context() as patch:
        patch.setattr(Problem, "compute", fail)
        with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED.*convt: MemoryError: no room"):
            function(*given).block_until_ready()
    assert_identical(np.asarray(function(*given)), np.asarray(wanted))


def test_wrong_arguments_are_errors_when_traced() -> None:
    x, w, _ = arrays(PLAIN)
    with pytest.raises(ValueError, match=r"output_shape\[1\] = 9"):
        jax.jit(lambda x: convt.conv3d_transpose(x, w, [2, 9, 3, 6, 3], (2, 1, 3)))(x)
    with pytest.raises(TypeError, match="out is for NumPy arrays"):
        convt.jax.conv3d_transpose(x, w, None, 1, out=np.empty(3))
    with pytest.raises(TypeError, match="int32"):
        convt.conv3d_transpose(jnp.ones((1, 1, 1, 1, 1), "int32"), w, None, 1)
    with pytest.raises(ValueError, match="threads = 0"):
        convt.conv3d_transpose(x, w, None, 1, threads=0)


def test_empty_arrays() -> None:
    y = convt.conv3d_transpose(jnp.ones((0, 2, 2, 2, 3)), jnp.ones((2, 2, 2, 4, 3)), None, 2)
    assert y.shape == (0, 4, 4, 4, 4)
    x, w = jnp.ones((1, 2, 2, 2, 0)), jnp.ones((2, 2, 2, 4, 0))
    assert_identical(np.asarray(convt.conv3d_transpose(x, w, None, 2)), np.zeros((1, 4, 4, 4, 4)))
    gradient = jax.grad(lambda w: convt.conv3d_transpose(x, w, None, 2).sum())(w)
    assert gradient.shape == w.shape


def test_many_threads_at_once() -> None:
    x, w, b = arrays(Case((8, 8, 8), (3, 3, 3), 2, into=8, out=8), np.float32)
    function = jax.jit(
        jax.grad(lambda w, x: jnp.sum(convt.conv3d_transpose(x, w, None, 2, bias=b) ** 2))
    )
    wanted = np.asarray(function(w, x))
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(10):
            results = [function(w, x) for _ in range(3)]
            wrong.extend(r for r in results if float(r[0, 0, 0, 0, 0]) != wanted[0, 0, 0, 0, 0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


IN_FLIGHT = """
    import jax, jax.numpy as jnp, convt.jax
    x, w = jnp.ones((1, 32, 32, 32, 32)), jnp.ones((3, 3, 3, 32, 32))
    step = lambda y: convt.jax.conv3d_transpose(y, w, None, 1) * 1e-3
    function = jax.jit(lambda x: step(step(step(x) + 1) + 1))
    for _ in range(4):
        y = function(x + 1)
    print("left", flush=True)
"""


def test_a_process_may_end_while_xla_computes() -> None:
    assert python(IN_FLIGHT) == "left\n"


CACHED = """
    import jax, jax.numpy as jnp, convt.jax
    from jax._src import monitoring
    hits = []
    monitoring.register_event_listener(lambda event, **_: hits.append(event))
    x, w = jnp.ones((1, 2, 2, 2, 3)), jnp.ones((2, 2, 2, 5, 3))
    y = jax.jit(lambda x: convt.jax.conv3d_transpose(x, w, None, 2) + 1)(x)
    print(float(y.min()), float(y.max()), sum("cache_hit" in hit for hit in hits) > 0)
"""


def test_compiled_programs_may_be_kept_on_disk(tmp_path: Any) -> None:
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    assert python(CACHED, **settings) == "4.0 4.0 False\n"
    assert python(CACHED, **settings) == "4.0 4.0 True\n"


def test_a_frame_of_another_element_type_is_refused() -> None:
    import ctypes

    memory = (ctypes.c_int32 * 4)()
    dims = (ctypes.c_int64 * 1)(4)
    found = frame._Buffer(0, None, 4, ctypes.addressof(memory), 1, dims)
    operands = frame._Operands(
        0,
        None,
        1,
        (ctypes.c_int * 1)(1),
        (ctypes.POINTER(frame._Buffer) * 1)(ctypes.pointer(found)),
    )
    with pytest.raises(TypeError, match="element type 4"):
        frame.buffer(operands, 0, read_only=True)
    with pytest.raises(TypeError, match="no buffer at 1"):
        frame.buffer(operands, 1, read_only=True)


def test_training_gives_the_losses_of_lax() -> None:
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((4, 8, 8, 8, 1)), "float32")
    start = [
        jnp.asarray(rng.standard_normal(s) / 5, "float32")
        for s in ((3, 3, 3, 1, 8), (3, 3, 3, 1, 8))
    ]

    def losses(decode: Any) -> list[float]:
        def loss(weights: Any) -> Any:
            code = lax.conv_general_dilated(
                x, weights[0], (2, 2, 2), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
            )
            return jnp.mean((decode(jnp.tanh(code), weights[1]) - x) ** 2)

        step = jax.jit(jax.value_and_grad(loss))
        weights, found = start, []
        for _ in range(20):
            value, slopes = step(weights)
            weights = [w - 0.1 * s for w, s in zip(weights, slopes, strict=True)]
            found.append(float(value))
        return found

    ours = losses(lambda x, w: convt.conv3d_transpose(x, w, None, 2))
    assert ours[-1] < 0.9 * ours[0]
    np.testing.assert_allclose(ours, losses(lax_layer), rtol=1e-5)


def test_the_page_s_examples_run() -> None:
    names = run_page("jax.md")
    assert names["each"].shape == (2, *names["w"].shape)
    np.testing.assert_allclose(names["hessian_times_w"], names["slope"], rtol=1e-5)
