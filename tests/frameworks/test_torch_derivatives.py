"""convt under PyTorch's differentiation and vectorisation, by PyTorch's own checkers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convt
from frameworks.forms import CASES, PLAIN, Case

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import convt.torch  # noqa: E402
from convt.torch.operators import OPERATORS  # noqa: E402

nn: Any = convt  # whose types say NumPy
pytestmark = [
    pytest.mark.slow,  # PyTorch takes seconds to import
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # of its own use
]

TINY = [
    Case((2, 1, 2), (2, 1, 3), (2, 1, 1), into=1, out=2),
    Case((1, 2, 1), (2, 2, 1), 2, "VALID", None, (3, 1, 1), 2, "NCDHW", into=1, out=1),
    Case((2, 1, 2), (3, 1, 2), 2, ((1, 0), (0, 0), (0, 1)), into=1, out=1),
]


def normal(*shapes: Any, seed: int = 0) -> Any:
    made = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, dtype=torch.float64, generator=made).requires_grad_() for shape in shapes
    ]


def functions(case: Case) -> Any:
    """Each operation with the shapes of its tensors."""
    rest: Any = {"groups": case.groups}
    x, w, b = case.input_shape, case.filters_shape, case.bias_shape

    def transpose(x: Any, w: Any, b: Any) -> Any:
        return nn.conv3d_transpose(x, w, case.output_shape, *case.arguments, bias=b, **rest)

    def convolve(y: Any, w: Any, b: Any) -> Any:
        return nn.conv3d(y, w, *case.arguments, bias=b, **rest)

    def slope(x: Any, y: Any) -> Any:
        return nn.conv3d_transpose_filter_gradient(x, y, w, *case.arguments, **rest)

    y = tuple(transpose(*normal(x, w, b)).shape)
    turned = (*case.kernel, case.out, case.groups * case.into)
    return [
        (transpose, (x, w, b)),
        (convolve, (y, turned, (case.groups * case.into,))),
        (slope, (x, y)),
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("case", TINY, ids=str)
def test_derivatives_by_finite_differences(case: Case, which: int) -> None:
    function, shapes = functions(case)[which]
    given = normal(*shapes)
    assert torch.autograd.gradcheck(function, given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, given, check_fwd_over_rev=True)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_of_pytorch_s_own_kernels(dtype: Any, case: Case) -> None:
    """First and second order, against autograd through PyTorch's own convolution."""
    given = [
        values.detach().to(dtype).requires_grad_() for values in normal(*functions(case)[0][1])
    ]
    found = []
    for native in (False, True):
        if native:
            with convt.torch.native_kernels():
                found.append(both_orders(case, given))
        else:
            found.append(both_orders(case, given))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def both_orders(case: Case, given: Any) -> Any:
    first = torch.autograd.grad(functions(case)[0][0](*given).sin().sum(), given, create_graph=True)
    second = torch.autograd.grad(sum(values.square().sum() for values in first), given)
    return [*first, *second]


def test_gradients_of_conv_transpose3d() -> None:
    """The route to PyTorch's function does not pass through this package."""
    x, weight = normal((2, 4, 3, 2, 4), (4, 3, 3, 2, 3))
    theirs = torch.nn.functional.conv_transpose3d(x, weight, None, 2, 1, (1, 0, 1))
    ours = nn.conv3d_transpose(
        x, weight.permute(2, 3, 4, 1, 0), theirs.shape, 2, [(1, 1)] * 3, "NCDHW"
    )
    torch.testing.assert_close(ours, theirs)
    for actual, wanted in zip(
        torch.autograd.grad(ours.sin().sum(), (x, weight)),
        torch.autograd.grad(theirs.sin().sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_in_low_precision_have_its_dtype(dtype: Any) -> None:
    x, w = (
        t.detach().to(dtype).requires_grad_()
        for t in normal(PLAIN.input_shape, PLAIN.filters_shape)
    )
    y = nn.conv3d_transpose(x, w, None, PLAIN.strides)
    dx, dw = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    assert dx.dtype == dw.dtype == y.dtype == dtype
    exact = [t.detach().double().requires_grad_() for t in (x, w)]
    wide = nn.conv3d_transpose(*exact, None, PLAIN.strides)
    for low, high in zip(
        (dx, dw), torch.autograd.grad(wide, exact, torch.ones_like(wide)), strict=True
    ):
        torch.testing.assert_close(low.double(), high, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("case", TINY, ids=str)
def test_opcheck(case: Case) -> None:
    """Schema, registration of gradients, fake tensors and tracing with symbolic sizes."""
    from convt.arguments import parse_per_axis

    strides = list(parse_per_axis("strides", case.strides, case.data_format))
    dilations = list(parse_per_axis("dilations", case.dilations, case.data_format))
    explicit = not isinstance(case.padding, str)
    pads = [pad for pair in case.padding for pad in pair] if explicit else []
    padding = "EXPLICIT" if explicit else case.padding
    rest = (strides, padding, pads, case.data_format, dilations, case.groups, None, None)
    (_, (x, w, b)), (_, (y, *_)), _ = functions(case)
    x, w, b, y = normal(x, w, b, y)
    torch.library.opcheck(OPERATORS.transpose, (x, w, b, list(y.shape), *rest))
    torch.library.opcheck(OPERATORS.convolve, (y, w, None, list(x.shape), *rest))
    torch.library.opcheck(OPERATORS.filter_gradient, (x, y, list(w.shape), *rest))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_vmap_is_a_loop(case: Case, which: int) -> None:
    function, shapes = functions(case)[which]
    for mask in range(1, 2 ** len(shapes)):
        mapped = [bool(mask >> i & 1) for i in range(len(shapes))]
        given = [
            tensor.detach()
            for tensor in normal(
                *[(*s, 3) if m else s for s, m in zip(shapes, mapped, strict=True)]
            )
        ]
        found = torch.vmap(function, tuple(-1 if m else None for m in mapped))(*given)
        for i in range(3):
            one = [t[..., i] if m else t for t, m in zip(given, mapped, strict=True)]
            torch.testing.assert_close(found[i], function(*one))


def test_transforms_of_torch_func() -> None:
    function, shapes = functions(TINY[0])[0]
    x, w, b = (tensor.detach() for tensor in normal(*shapes))
    dx, dw, db = (tensor.detach() for tensor in normal(*shapes, seed=1))
    _, tangent = torch.func.jvp(function, (x, w, b), (dx, dw, db))
    torch.testing.assert_close(tangent, function(dx, w, db) + function(x, dw, 0 * b))
    _, tangent = torch.func.jvp(lambda b: function(x, w, b), (b,), (db,))
    torch.testing.assert_close(tangent, function(0 * x, w, db))
    forward, reverse = (
        how(lambda w: function(x, w, b))(w) for how in (torch.func.jacfwd, torch.func.jacrev)
    )
    torch.testing.assert_close(forward, reverse)
    hessian = torch.func.hessian(lambda w: function(x, w, b).pow(2).sum())(w)
    torch.testing.assert_close(
        hessian, 2 * torch.einsum("a...,a->...", outer(reverse), torch.ones(1, dtype=w.dtype))
    )
    each = torch.vmap(torch.func.grad(lambda x, w: function(x, w, b).square().sum()), (0, None))
    stack = torch.stack([x, dx])
    one = torch.func.grad(lambda x: function(x, w, b).square().sum())
    torch.testing.assert_close(each(stack, w), torch.stack([one(x), one(dx)]))


def outer(jacobian: Any) -> Any:
    """The products of a Jacobian with itself over the outputs, which is a quadratic form's Hessian."""
    flat = jacobian.reshape(-1, jacobian[0, 0, 0, 0, 0].numel())
    shape = jacobian.shape[5:]
    return (flat.T @ flat).reshape(1, *shape, *shape)


def test_what_no_derivative_needs_is_not_kept() -> None:
    kept: list[Any] = []

    def pack(tensor: Any) -> Any:
        kept.append(tuple(tensor.shape))
        return tensor

    x, w = normal(PLAIN.input_shape, PLAIN.filters_shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        nn.conv3d_transpose(x.detach(), w, None, PLAIN.strides)
        assert kept == [PLAIN.input_shape]
        kept.clear()
        nn.conv3d_transpose(x, w.detach(), None, PLAIN.strides)
        assert kept == [PLAIN.filters_shape]


def test_gradients_of_gradients_that_are_strided_oddly() -> None:
    """A sum's gradient is one element, repeated by strides of 0: kernels may add in another order."""
    x, w = normal(PLAIN.input_shape, PLAIN.filters_shape)
    y = nn.conv3d_transpose(x, w, None, PLAIN.strides)
    found = torch.autograd.grad(y.sum(), (x, w), retain_graph=True)
    wanted = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    for actual, values in zip(found, wanted, strict=True):
        np.testing.assert_allclose(actual.numpy(), values.numpy(), rtol=1e-13, atol=1e-13)
