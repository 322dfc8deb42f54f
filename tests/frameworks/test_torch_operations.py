"""convt for PyTorch's tensors: the bits of the call on NumPy arrays, on tensors of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convt
from frameworks.forms import CASES, PLAIN, Case, expected, three
from oracles import DTYPES, assert_identical
from processes import python

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import convt.torch  # noqa: E402
from convt.torch.views import array  # noqa: E402

nn: Any = convt  # whose types say NumPy
pytestmark = [
    pytest.mark.slow,  # PyTorch takes seconds to import
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # of its own use
]


def tensors(case: Case, dtype: Any = np.float64) -> Any:
    return tuple(tensor(values) for values in case.arrays(dtype))


def tensor(values: Any) -> Any:
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def check(found: Any, wanted: Any) -> None:
    for actual, values in zip(found, wanted, strict=True):
        assert isinstance(actual, torch.Tensor)
        assert_identical(array(actual), values)


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_of_numpy(dtype: Any, case: Case, records: bool) -> None:
    given = [values.requires_grad_(records) for values in tensors(case, dtype)]
    found = three(convt, case, *given)
    assert all(values.requires_grad == records for values in found)
    check(found, expected(case, dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=str)
def test_pytorch_s_own_kernels_mean_the_same(dtype: Any, case: Case) -> None:
    with convt.torch.native_kernels():
        check(three(convt, case, *tensors(case, dtype)), expected(case, dtype))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 0), (3, 0), (0, 4))], ids=str)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_size_on_pytorch_s_own_kernels(stride: int, kernel: int, padding: Any) -> None:
    """Where nothing is cropped, too much, and where outputs lie beyond the last tap."""
    from convt.spec import size_range

    rng = np.random.default_rng(0)
    pads: Any = (padding,) * 3 if isinstance(padding, str) else padding
    for dilation in (1, 3):
        ranges = [
            size_range(size=4, kernel=kernel, stride=stride, dilation=dilation, padding=pad)
            for pad in pads
        ]
        if any(high < 1 for _, high in ranges):
            continue
        for turn in range(stride):
            size = [max(min(low + turn, high), 1) for low, high in ranges]
            case = Case((4, 4, 4), (kernel,) * 3, stride, padding, tuple(size), dilation, 2)  # type: ignore[arg-type]
            x, w, b = (
                torch.from_numpy(rng.integers(-2, 3, shape).astype(np.float32))
                for shape in (case.input_shape, case.filters_shape, case.bias_shape)
            )
            wanted = three(convt, case, x, w, b)
            with convt.torch.native_kernels():
                for actual, values in zip(three(convt, case, x, w, b), wanted, strict=True):
                    torch.testing.assert_close(actual, values, rtol=0, atol=0)


def test_no_element_is_copied_on_the_way_in_or_out() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(3, 4, dtype=dtype).t()
        view = array(x)
        view[1, 2] = 7
        assert x[1, 2] == 7
        assert view.ctypes.data == x.data_ptr()
        y = nn.conv3d_transpose(
            torch.ones(1, 2, 2, 2, 1, dtype=dtype), torch.ones(1, 1, 1, 1, 1, dtype=dtype), None, 1
        )
        assert y.is_contiguous()
        assert not y._is_view()


@pytest.mark.parametrize("records", [False, True])
def test_strides_of_tensors(records: bool) -> None:
    case = CASES[2]
    x, w, b = tensors(case)
    wanted = expected(case, np.float64)
    backwards = x.flip(3).clone().flip(3)  # flip copies: what is left is a tensor like x
    wide = torch.empty(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)[..., ::2].copy_(x)
    for layout in (backwards, wide, x.contiguous(memory_format=torch.channels_last_3d)):
        y, turned, slope = three(
            convt, case, layout.requires_grad_(records) if layout.is_leaf else layout, w, b
        )
        check((y.detach(), turned.detach(), slope.detach()), wanted)
    last = x.detach().contiguous(memory_format=torch.channels_last_3d)
    y = nn.conv3d_transpose(last, w, case.output_shape, *case.arguments, bias=b, groups=case.groups)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert not y.is_contiguous()


def test_views_of_complex_numbers_with_the_negative_bit() -> None:
    x, w, _ = tensors(PLAIN)
    negative = torch.complex(x, x).conj().imag
    assert negative.is_neg()
    expected_y = -nn.conv3d_transpose(x, w, None, PLAIN.strides)
    assert torch.equal(nn.conv3d_transpose(negative, w, None, PLAIN.strides), expected_y)


def test_empty_tensors() -> None:
    x, w = torch.ones(0, 2, 2, 2, 3), torch.ones(2, 2, 2, 4, 3)
    for context in (torch.enable_grad(), convt.torch.native_kernels()):
        with context:
            assert nn.conv3d_transpose(x, w, None, 2).shape == (0, 4, 4, 4, 4)
            none = nn.conv3d_transpose(
                torch.ones(1, 2, 2, 2, 0), torch.ones(2, 2, 2, 4, 0), None, 2
            )
            assert torch.equal(none, torch.zeros(1, 4, 4, 4, 4))
    w.requires_grad_()
    nn.conv3d_transpose(x, w, None, 2).sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))


def test_out() -> None:
    x, w, b = tensors(PLAIN, np.float32)
    wanted = nn.conv3d_transpose(x, w, None, PLAIN.strides, bias=b)
    for context in (torch.no_grad(), convt.torch.native_kernels()):
        out = torch.full_like(wanted, torch.nan)
        with context:
            version = out._version
            found = nn.conv3d_transpose(x, w, None, PLAIN.strides, bias=b, out=out)
        assert found is out
        assert torch.equal(out, wanted)
        assert out._version > version  # so that a graph that kept `out` notices
    with pytest.raises(RuntimeError, match="no gradient is recorded through out"):
        nn.conv3d_transpose(x.requires_grad_(), w, None, PLAIN.strides, out=out)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"out.shape = \(1,\) must be the output's"),
    ):
        nn.conv3d_transpose(x, w, None, PLAIN.strides, out=torch.empty(1))


def test_autocast_lowers_as_it_does_for_pytorch_s_own() -> None:
    x, w = torch.ones(1, 2, 2, 2, 3), torch.ones(2, 2, 2, 4, 3)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert nn.conv3d_transpose(x, w, None, 2).dtype == dtype
            assert nn.conv3d_transpose(x.to(dtype), w, None, 2).dtype == dtype
            assert nn.conv3d_transpose(x.double(), w.double(), None, 2).dtype == torch.float64
            w.requires_grad_()
            nn.conv3d_transpose(x, w, None, 2).sum().backward()
        assert w.grad.dtype == torch.float32
        w.requires_grad_(False)


def test_pytorch_s_number_of_threads_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from convt.torch import kernels

    monkeypatch.setattr(kernels, "get_num_threads", lambda: 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert kernels._count(None) == 1
        assert kernels._count(4) == 4
    finally:
        torch.set_num_threads(before)


class Marked(torch.Tensor):  # type: ignore[misc,name-defined]
    """A tensor class of a user's own, as MONAI has one."""


def test_subclasses_stay_what_they_are() -> None:
    x, w, _ = tensors(PLAIN)
    y = nn.conv3d_transpose(x.as_subclass(Marked), w, None, PLAIN.strides)
    assert type(y) is Marked
    wanted = nn.conv3d_transpose(x, w, None, PLAIN.strides)
    assert torch.equal(y.as_subclass(torch.Tensor), wanted)


def test_modes_see_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    x, w, _ = tensors(PLAIN)
    with Mode():
        nn.conv3d_transpose(x, w, None, PLAIN.strides)
    assert "convt.conv3d_transpose.default" in seen


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w": lambda w: w.numpy()}, TypeError, "takes arrays of one kind"),
        ({"w": lambda w: w.double()}, TypeError, r"filters is torch.float64 on cpu and must be as"),
        ({"x": lambda x: x.int()}, TypeError, "input dtype torch.int32 must be float16"),
        ({"x": lambda x: x.to_sparse()}, TypeError, "input layout torch.sparse_coo must"),
        ({"w": lambda w: w.to("meta")}, TypeError, "filters is torch.float32 on meta"),
        ({"x": lambda x: x[0]}, ValueError, "input must have 5 dimensions"),
        ({"shape": lambda _: (2, 9, 3, 6, 3)}, ValueError, "output_shape.1. = 9 .depth.* allowed 3 to 4"),
        ({"x": lambda x: x[..., :1]}, ValueError, r"filters.shape\[4\] = 2 must be the input's"),
    ],
)  # fmt: skip
def test_errors(change: Any, error: Any, message: str) -> None:
    x, w, _ = tensors(PLAIN, np.float32)
    given: dict[str, Any] = {"x": x, "w": w, "shape": None}
    given |= {name: function(given[name]) for name, function in change.items()}
    with pytest.raises(error, match=message):
        nn.conv3d_transpose(given["x"], given["w"], given["shape"], PLAIN.strides)


def test_what_is_no_tensor_is_named() -> None:
    x, w, _ = tensors(PLAIN)
    with pytest.raises(
        TypeError, match="conv3d_transpose takes tensors here, but filters is a list"
    ):
        convt.torch.conv3d_transpose(x, w.tolist(), None, 2)
    with pytest.raises(ValueError, match="threads = 0 must be at least 1"):
        nn.conv3d_transpose(x, w, None, PLAIN.strides, threads=0)
    with pytest.raises(ValueError, match='algorithm must be "auto"'):
        nn.conv3d_transpose(x, w, None, PLAIN.strides, algorithm="slow")


def test_operators_check_what_a_file_may_say() -> None:
    x, w, _ = tensors(PLAIN)
    geometry: Any = ([2, 1, 3], "SAME", [], "NDHWC", [1, 1, 1], 1, None, None)
    with pytest.raises(ValueError, match="output_shape"):
        torch.ops.convt.conv3d_transpose(x, w, None, [2, 40, 3, 6, 3], *geometry)
    with pytest.raises(ValueError, match="the shape of the result is"):
        torch.ops.convt.conv3d(x, w.swapaxes(3, 4), None, [9, 9, 9, 9, 9], *geometry)


def test_importing_convt_imports_no_pytorch_and_the_call_does() -> None:
    code = """
        import sys, convt
        before = "torch" in sys.modules
        import torch
        y = convt.conv3d_transpose(torch.ones(1, 2, 2, 2, 1), torch.ones(2, 2, 2, 1, 1), None, 2)
        print(before, type(y).__name__, "torch._dynamo" in sys.modules)
    """
    assert python(code).split() == ["False", "Tensor", "False"]
