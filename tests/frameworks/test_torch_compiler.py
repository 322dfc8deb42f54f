"""convt under PyTorch's compiler and exporter.

The compiler's own code generator would take the time of all other tests together and sees an operator as
any other, so what is compiled here runs by `aot_eager`: traced forward and backward, with sizes as symbols.
"""

from __future__ import annotations

import io
from typing import Any

import pytest

import convt
from frameworks.forms import CASES, PLAIN, Case

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import convt.torch  # noqa: E402
from convt.torch import ConvTranspose3d  # noqa: E402

nn: Any = convt  # whose types say NumPy
pytestmark = [
    pytest.mark.slow,  # PyTorch takes seconds to import
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # of its own use
]


def function(case: Case) -> Any:
    def compute(x: Any, w: Any, b: Any) -> Any:
        y = nn.conv3d_transpose(
            x, w, case.output_shape, *case.arguments, bias=b, groups=case.groups
        )
        turned = nn.conv3d(
            y.sin(), w.reshape(case.kernel + turned_channels), *case.arguments, groups=case.groups
        )
        slope = nn.conv3d_transpose_filter_gradient(
            turned.sin(), y, case.filters_shape, *case.arguments, groups=case.groups
        )
        return y.sum() + turned.sum() + slope.sum()

    turned_channels = (case.out, case.groups * case.into)
    return compute


@pytest.fixture(autouse=True)
def _anew() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("case", "dynamic"), [(PLAIN, True), *((case, False) for case in CASES[1:])], ids=str
)
def test_compiled_in_one_graph(case: Case, dynamic: bool) -> None:
    torch.manual_seed(0)
    given = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in (case.input_shape, case.filters_shape, case.bias_shape)
    ]
    eager = function(case)
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    wanted = torch.autograd.grad(eager(*given), given)
    found = torch.autograd.grad(compiled(*given), given)
    for actual, values in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, values)


def test_a_layer_of_any_size_is_compiled_once() -> None:
    layer = ConvTranspose3d(2, 3, 3, 2, "SAME")
    from torch._dynamo.testing import CompileCounterWithBackend

    count = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=count, dynamic=True)
    for size in (
        (3, 4, 6),
        (5, 4, 3),
        (3, 6, 5),
    ):  # at first all differ, so that none stands for two
        x = torch.randn(7, 2, *size)
        torch.testing.assert_close(compiled(x), layer(x))
    assert count.frame_count == 1
    x = torch.randn(7, 2, 5, 3, 4).contiguous(memory_format=torch.channels_last_3d)
    assert compiled(x).stride() == layer(x).stride()


def test_errors_while_compiling_are_those_of_a_call() -> None:
    def compute(x: Any, w: Any) -> Any:
        return nn.conv3d_transpose(x, w, (1, 9, 4, 4, 2), 2)

    compiled = torch.compile(compute, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"output_shape\[1\] = 9 .* allowed 3 to 4"):
        compiled(torch.ones(1, 2, 2, 2, 1), torch.ones(2, 2, 2, 2, 1))


def test_autocast_is_compiled_too() -> None:
    layer = ConvTranspose3d(2, 3, 3, 2, "SAME")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(torch.ones(1, 2, 2, 2, 2)).dtype == torch.bfloat16


def test_tangents_are_not_lost_in_a_graph() -> None:
    x, w = torch.randn(1, 2, 2, 2, 1), torch.randn(2, 2, 2, 1, 1)

    def tangent(x: Any) -> Any:
        return torch.func.jvp(lambda x: nn.conv3d_transpose(x, w, None, 2), (x,), (x + 1,))[1]

    with pytest.raises(Exception, match="graph_break"):
        torch.compile(tangent, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(tangent(x), nn.conv3d_transpose(x + 1, w, None, 2))


@pytest.mark.parametrize("padding", ["SAME", 1])
@pytest.mark.parametrize("strict", [False, True])
def test_exported_saved_and_loaded(strict: bool, padding: Any) -> None:
    layer = ConvTranspose3d(2, 3, 3, 2, padding)
    x = torch.randn(2, 2, 3, 4, 5)
    sizes = {2: torch.export.Dim("depth", min=2, max=64)}
    exported = torch.export.export(layer, (x,), dynamic_shapes=(sizes,), strict=strict)
    assert "convt.conv3d_transpose" in str(exported.graph)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for depth in (3, 7):
        x = torch.randn(2, 2, depth, 4, 5)
        torch.testing.assert_close(again(x), layer(x))
