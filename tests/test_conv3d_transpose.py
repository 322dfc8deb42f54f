"""The call as users make it: what it takes, what it returns, what it refuses."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convt
from convt import reference
from oracles import BFLOAT16, DTYPES, Array, assert_identical, integers
from problems import DIRECTIONS, box

NEW_SHAPE = (2, 6, 7, 8, 5)


def arrays(dtype: Any = np.float32) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return integers(rng, (2, 3, 4, 4, 6), dtype), integers(rng, (3, 3, 3, 5, 6), dtype)


def call(x: Any, w: Any, **changes: Any) -> Array:
    arguments: dict[str, Any] = {"output_shape": NEW_SHAPE, "strides": 2}
    return convt.conv3d_transpose(x, w, **(arguments | changes))


# --- what comes back ----------------------------------------------------------------------------
def test_positional_arguments_have_tensorflow_s_order() -> None:
    x, w = arrays()
    y = convt.conv3d_transpose(x, w, NEW_SHAPE, (1, 2, 2, 2, 1), "SAME", "NDHWC", (1, 1, 1), "up")
    assert_identical(y, reference.conv3d_transpose(x, w, NEW_SHAPE, 2))


def test_extensions_are_keywords_only() -> None:
    kinds = inspect.signature(convt.conv3d_transpose).parameters
    extensions = [n for n, p in kinds.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert extensions == ["bias", "groups", "out", "threads", "algorithm"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_result_is_new_contiguous_and_native(dtype: Any) -> None:
    x, w = arrays(dtype)
    if dtype != BFLOAT16:
        x, w = x.astype(x.dtype.newbyteorder()), w.astype(w.dtype.newbyteorder())
    y = call(x, w)
    assert type(y) is np.ndarray
    assert y.shape == NEW_SHAPE
    assert y.dtype == dtype
    assert y.dtype.isnative
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert not np.shares_memory(y, call(x, w))


def test_the_arguments_stay_as_they_are() -> None:
    x, w = arrays()
    b = np.ones(5, np.float32)
    kept = [array.copy() for array in (x, w, b)]
    call(x, w, bias=b)
    for array, before in zip((x, w, b), kept, strict=True):
        assert_identical(array, before)


def test_the_same_call_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 6, 6, 33)).astype(np.float32)
    w = rng.standard_normal((3, 3, 3, 17, 33)).astype(np.float32)
    first = convt.conv3d_transpose(x, w, None, 2)
    for _ in range(5):
        assert first.tobytes() == convt.conv3d_transpose(x, w, None, 2).tobytes()


def test_what_is_not_given_is_inferred() -> None:
    x, w = arrays()
    assert call(x, w, output_shape=None).shape == (2, 6, 8, 8, 5)
    assert call(x, w, output_shape=[-1, 5, None, 7, -1]).shape == (2, 5, 8, 7, 5)
    assert call(x, w, output_shape=None, padding="VALID").shape == (2, 7, 9, 9, 5)
    assert call(x, w, output_shape=None, padding=[(1, 0), (1, 1), (0, 0)]).shape == (2, 6, 7, 9, 5)


def test_lists_are_arrays() -> None:
    y = convt.conv3d_transpose([[[[[1.0], [2.0]]]]], [[[[[3.0]], [[4.0]]]]], None, (1, 1, 2))
    assert y.dtype == np.float64
    assert y.ravel().tolist() == [3.0, 4.0, 6.0, 8.0]


def test_a_memory_map_of_a_big_endian_file(tmp_path: Path) -> None:
    x, w = arrays()
    path = tmp_path / "volume.npy"
    np.save(path, x.astype(">f4"))
    assert_identical(call(np.load(path, mmap_mode="r"), w), call(x, w))


@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("forward", DIRECTIONS)
@pytest.mark.parametrize("channels", [1, 24])
def test_offsets_beyond_32_bits(
    tmp_path: Path, channels: int, forward: bool, data_format: str
) -> None:
    # A sparse file: of its 10 GiB only the pages that are used take room.
    shape: Any = ((3, 3, 4), channels, channels, (2, 2, 2), (2, 2, 2))
    problem = box(*shape, batch=2, data_format=data_format)
    problem = problem.adjoint if forward else problem
    x, w, _ = problem.integers()
    expected = problem.define(x, w)
    gap = 5 << 28  # elements
    file = np.memmap(tmp_path / "sparse", np.float32, "w+", shape=(2, gap))
    far_x = file[:, : x[0].size].reshape(x.shape)
    far_y = file[:, -expected[0].size :].reshape(expected.shape)
    assert far_x.strides[0] == far_y.strides[0] == 5 << 30
    far_x[...] = x
    y = problem.call(far_x, w, out=far_y)
    assert_identical(np.array(y), expected)


def test_it_multiplies_by_no_padding() -> None:
    """One voxel under a large kernel: TensorFlow's issue 19611."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 1, 1, 1, 50)).astype(np.float32)
    w = rng.standard_normal((28, 28, 1, 1, 50)).astype(np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        y = convt.conv3d_transpose(x, w, (200, 28, 28, 1, 1), 1, "VALID")
        best = min(best, time.perf_counter() - start)
    expected = np.einsum("nc,abc->nab", x[:, 0, 0, 0], w[:, :, 0, 0])
    np.testing.assert_allclose(y[..., 0, 0], expected, rtol=0, atol=1e-4)
    assert best < 0.2  # about 8 million products: milliseconds, and much room for a busy machine


def test_strides_and_dilations_that_only_one_voxel_survives() -> None:
    x, w = np.ones((1, 1, 1, 1, 3), np.float32), np.ones((2, 1, 1, 2, 3), np.float32)
    y = convt.conv3d_transpose(x, w, (1, 5, 1, 1, 2), (10**12, 1, 10**9), dilations=(10**15, 7, 1))
    expected = reference.conv3d_transpose(x, w, (1, 5, 1, 1, 2), (10**12, 1, 10**9), "SAME", None,
                                          (10**15, 7, 1))  # fmt: skip
    assert_identical(y, expected)


# --- out ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out_is_written_and_returned(dtype: Any) -> None:
    x, w = arrays(dtype)
    out = np.full(NEW_SHAPE, np.nan, dtype)
    assert call(x, w, out=out) is out
    assert_identical(out, call(x, w))


def test_out_may_be_a_part_of_a_larger_array() -> None:
    x, w = arrays()
    volume = np.full((2, 12, 7, 16, 9), 7.0, np.float32)
    part = volume[:, ::-2, :, 4:12, 1:6]
    assert call(x, w, out=part) is part
    assert_identical(part, call(x, w))
    part[...] = 7.0
    assert np.all(volume == 7.0)


def test_out_may_lie_between_the_input_s_elements() -> None:
    x, _ = arrays()
    memory = np.zeros((2, 3, 4, 4, 12), np.float32)
    memory[..., ::2] = x
    w = integers(np.random.default_rng(0), (3, 3, 3, 6, 6), np.float32)
    convt.conv3d_transpose(memory[..., ::2], w, None, 1, out=memory[..., 1::2])
    assert_identical(memory[..., 1::2], reference.conv3d_transpose(x, w, None, 1))
    assert_identical(memory[..., ::2], x)


def refused_outs() -> dict[str, tuple[Any, type[Exception], str]]:
    readonly = np.zeros(NEW_SHAPE, np.float32)
    readonly.flags.writeable = False
    repeated = np.lib.stride_tricks.as_strided(np.zeros(6 * 7 * 8 * 5, np.float32),
                                               NEW_SHAPE, (0, 1120, 160, 20, 4))  # fmt: skip
    return {
        "list": ([0.0], TypeError, "out must be a numpy.ndarray, got list"),
        "shape": (
            np.zeros((2, 6, 8, 8, 5), np.float32),
            ValueError,
            r"out\.shape = \(2, 6, 8, 8, 5\) must be the output's: \(2, 6, 7, 8, 5\)",
        ),
        "dtype": (
            np.zeros(NEW_SHAPE, np.float64),
            TypeError,
            r"out\.dtype = float64 must be the input's in native order: float32",
        ),
        "byte order": (
            np.zeros(NEW_SHAPE, ">f4"),
            TypeError,
            r"out\.dtype = >f4 must be the input's in native order: float32",
        ),
        "readonly": (readonly, ValueError, "out must be writeable"),
        "repeated": (
            repeated,
            ValueError,
            r"out\.strides = \(0, 1120, 160, 20, 4\) let elements of out share memory",
        ),
    }


@pytest.mark.parametrize("reason", refused_outs())
def test_out_is_refused(reason: str) -> None:
    x, w = arrays()
    out, kind, message = refused_outs()[reason]
    with pytest.raises(kind, match=message):
        call(x, w, out=out)


@pytest.mark.parametrize("name", ["input", "filters", "bias"])
def test_out_is_refused_where_it_overlaps(name: str) -> None:
    memory = np.ones(10_000, np.float32)
    out = memory[: 2 * 6 * 7 * 8 * 5].reshape(NEW_SHAPE)
    kept: dict[str, Array] = dict(zip(("input", "filters"), arrays(), strict=True))
    kept["bias"] = np.ones(5, np.float32)
    shape = kept[name].shape
    size = int(np.prod(shape))
    last = out.size - 1
    kept[name] = memory[last : last + size].reshape(shape)  # one element in common
    with pytest.raises(ValueError, match=f"out shares memory with {name}: pass a copy of one"):
        call(kept["input"], kept["filters"], bias=kept["bias"], out=out)
    assert np.all(memory == 1)  # refused before anything was written


# --- refused ------------------------------------------------------------------------------------
# What `make_spec` refuses has its tests beside it; these show that the call passes everything on.
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"strides": 0}, ValueError, "strides = 0 must be at least 1"),
    ({"dilations": (1, 0, 1)}, ValueError, r"dilations\[1\] = 0 must be at least 1"),
    ({"padding": "same"}, ValueError, "got 'same': write \"SAME\""),
    ({"data_format": "NHWC"}, ValueError, 'data_format must be "NDHWC", "NCDHW" or None'),
    ({"groups": 4}, ValueError, "groups = 4 must divide the input's channels, 6"),
    ({"threads": 0}, ValueError, "threads = 0 must be at least 1"),
    ({"threads": 1.0}, TypeError, "threads = 1.0 must be an integer"),
    ({"threads": True}, TypeError, "threads = True must be an integer"),
    ({"bias": np.ones(4, np.float32)}, ValueError, r"bias\.shape = \(4,\) must be \(5,\)"),
    ({"bias": [1, 2, 3, 4, 5]}, TypeError, "bias dtype int64 must be the input's, float32"),
    (
        {"output_shape": (2, 6, 9, 8, 5)},
        ValueError,
        r"output_shape\[2\] = 9 \(height\) can't come from input height 4 with stride 2, "
        r"kernel 3, dilation 1, padding SAME: allowed 7 to 8",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED, ids=str)
def test_arguments_are_refused(changes: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(*arrays(), **changes)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (np.int16, r"input dtype int16 must be .*: use input\.astype\(np\.float32\)"),
        (np.int64, r"input dtype int64 must be .*: use input\.astype\(np\.float64\)"),
        (np.complex64, r"input dtype complex64 must be .*: convolve input\.real and input\.imag"),
        (object, "input dtype object must be float16, bfloat16, float32 or float64"),
        ("U3", "input dtype <U3 must be float16, bfloat16, float32 or float64"),
    ],
)
def test_dtypes_are_refused(dtype: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(np.zeros((2, 3, 4, 4, 6), dtype), arrays()[1])


def test_filters_of_another_dtype_are_refused() -> None:
    x, w = arrays()
    with pytest.raises(TypeError, match=r"filters dtype float64 must be the input's, float32"):
        call(x, w.astype(np.float64))


def test_other_ranks_are_refused() -> None:
    x, w = arrays()
    with pytest.raises(ValueError, match=r"input must have 5 dimensions .* shape \(3, 4, 4, 6\)"):
        call(x[0], w)
    with pytest.raises(ValueError, match=r"filters must have 5 dimensions .* shape \(3, 3, 5, 6\)"):
        call(x, w[0])


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["NDHWC", "NCDHW"])
@pytest.mark.parametrize("forward", DIRECTIONS)
def test_large_filters_are_packed_in_parts(
    forward: bool, data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some output channels at a time: the same result, whatever the parts."""
    channels = (70, 20) if forward else (20, 70)
    shape: Any = ((3, 4, 3), *channels, (3, 2, 3), (2, 2, 2))
    problem = box(*shape, batch=2, data_format=data_format, bias=True)
    problem = problem.adjoint if forward else problem
    arrays = problem.normal()
    whole = problem.call(*arrays)
    monkeypatch.setattr("convt.api._PACKED_AT_ONCE", arrays[1].nbytes // 4)
    np.testing.assert_allclose(problem.call(*arrays), whole, atol=1e-5)


@pytest.mark.parametrize("channels", [7, 16])  # the latter fill whole vectors
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("offset", [0, 8])  # bytes from a cache line on
def test_a_bias_lies_anywhere(offset: int, dtype: Any, channels: int) -> None:
    rng = np.random.default_rng(0)
    x, w = integers(rng, (1, 3, 3, 3, 4), dtype), integers(rng, (3, 2, 3, channels, 4), dtype)
    block = np.zeros(channels * 8 + 128, np.uint8)
    start = -block.ctypes.data % 64 + offset
    bias = block[start:][: channels * w.itemsize].view(dtype)
    bias[:] = np.arange(channels)
    expected = reference.conv3d_transpose(x, w, None, 2, bias=bias)
    for given in (bias, np.repeat(bias, 2)[::2], bias.astype(bias.dtype.newbyteorder())):
        assert_identical(convt.conv3d_transpose(x, w, None, 2, bias=given), expected)
