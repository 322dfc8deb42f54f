"""`convt.torch.ConvTranspose3d` beside `torch.nn.ConvTranspose3d`, and `accelerate`."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convt

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import convt.torch  # noqa: E402
from convt.torch import ConvTranspose3d, accelerate  # noqa: E402

Theirs: Any = torch.nn.ConvTranspose3d
pytestmark = [
    pytest.mark.slow,  # PyTorch takes seconds to import
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # of its own use
]


def pair(*arguments: Any, **options: Any) -> tuple[Any, Any]:
    """PyTorch's layer and ours, with the same parameters."""
    torch.manual_seed(0)
    theirs, ours = Theirs(*arguments, **options), ConvTranspose3d(*arguments, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


KERNELS = (1, 3, (2, 3, 4))
SHAPES = [
    {"kernel_size": k, "stride": s, "padding": p, "output_padding": o, "dilation": d}
    for k, s, p, o, d in itertools.product(KERNELS, (1, 2, (3, 1, 2)), (0, 1), (0, 1), (1, 2))
    if o < min(s if isinstance(s, tuple) else (s,)) or d > 1
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_the_results_of_pytorch_s_layer(options: Any, groups: int) -> None:
    theirs, ours = pair(4, 6, groups=groups, bias=groups == 1, **options)
    x = torch.randn(2, 4, 3, 4, 3)
    try:
        wanted = theirs(x)
    except RuntimeError:  # an output size below 1
        with pytest.raises(ValueError, match=r"allowed|padding"):
            ours(x)
        return
    torch.testing.assert_close(ours(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes_and_layouts(dtype: Any) -> None:
    theirs, ours = pair(3, 5, 3, 2, 1, 1, dtype=dtype)
    x = torch.randn(2, 3, 4, 4, 4).to(dtype)
    wanted = theirs.double()(x.double())
    for layout in (x, x.contiguous(memory_format=torch.channels_last_3d), x.transpose(2, 4)):
        y = ours(layout)
        assert y.dtype == dtype
        close = wanted.transpose(2, 4) if layout.shape != x.shape else wanted
        if layout is not x and not layout.is_contiguous(memory_format=torch.channels_last_3d):
            close = theirs(layout.double())
        torch.testing.assert_close(y.double(), close, rtol=2**-7, atol=2**-7)


def test_without_a_batch_and_with_output_sizes() -> None:
    theirs, ours = pair(3, 5, 3, 2, 1)
    x = torch.randn(1, 3, 4, 4, 4)
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    for size in ((7, 8, 7), (1, 5, 8, 7, 8)):
        torch.testing.assert_close(ours(x, size), theirs(x, size))
    with pytest.raises(ValueError, match=r"output_size = 9 \(height\) can't come from .* 7 to 8"):
        ours(x, (8, 9, 8))
    with pytest.raises(ValueError, match="output_size must be 3 or 5 sizes"):
        ours(x, (8, 8))
    with pytest.raises(ValueError, match=r"input must be \[batch, channels, depth"):
        ours(x[0, 0])


def test_output_padding_that_pytorch_refuses() -> None:
    with pytest.raises(ValueError, match="output_padding = 2 must be less than the stride, 2, or"):
        ConvTranspose3d(3, 5, 3, 2, 1, 2)(torch.randn(1, 3, 4, 4, 4))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_tensorflow_s_padding(padding: str) -> None:
    layer = ConvTranspose3d(3, 5, (3, 2, 4), (2, 1, 3), padding)
    x = torch.randn(1, 3, 4, 3, 2)
    w = layer.weight.detach().permute(2, 3, 4, 1, 0).contiguous().numpy()
    for size in (None, (7, 3, 6) if padding == "SAME" else (10, 4, 8)):
        shape = None if size is None else (1, 5, *size)
        wanted = convt.conv3d_transpose(
            x.numpy(), w, shape, (2, 1, 3), padding, "NCDHW", bias=layer.bias.detach().numpy()
        )
        np.testing.assert_array_equal(layer(x, size).detach().numpy(), wanted)
    with pytest.raises(ValueError, match='write "SAME"'):
        ConvTranspose3d(3, 5, 3, 2, "same")
    with pytest.raises(ValueError, match="call the layer with the output_size"):
        ConvTranspose3d(3, 5, 3, 2, padding, output_padding=1)


def test_it_is_one_of_pytorch_s_layers() -> None:
    theirs, ours = pair(4, 6, (1, 2, 3), 2, 1, groups=2, bias=False, dilation=2)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, Theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 4, 4, 4, 4)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied(x), ours(x))
    with pytest.raises(ValueError, match="zeros"):
        ConvTranspose3d(3, 5, 3, padding_mode="reflect")
    meta = ConvTranspose3d(4, 6, 3, 2, padding="SAME", device="meta", dtype=torch.float64)
    assert meta(torch.empty(1, 4, 3, 3, 3, device="meta", dtype=torch.float64)).shape == (
        1,
        6,
        6,
        6,
        6,
    )


class Autoencoder(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, up: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = torch.nn.Conv3d(1, 8, 3, 2, 1)
        self.up = up(8, 1, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        return self.up(torch.relu(self.down(x)))


def losses(up: Any) -> list[float]:
    model = Autoencoder(up).double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x = torch.randn(4, 1, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_an_autoencoder_learns_as_with_pytorch_s_layer() -> None:
    theirs = losses(Theirs)
    np.testing.assert_allclose(losses(ConvTranspose3d), theirs, rtol=1e-9)
    assert theirs[-1] < 0.8 * theirs[0]


def test_accelerate_and_undo() -> None:
    class Own(Theirs):  # type: ignore[misc]
        pass

    model = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3),
        Theirs(4, 4, 2, 2),
        Own(4, 4, 2, 2),
        torch.nn.ModuleList([Theirs(4, 4, 3), ConvTranspose3d(4, 4, 3)]),
        torch.nn.utils.parametrizations.weight_norm(Theirs(4, 4, 3)),
        Theirs(4, 4, 3, device="meta"),
        Theirs(4, 4, 3, dtype=torch.complex64),
        Theirs(4, 4, 1),
    )
    model[3][0].forward = model[3][0].forward
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 1, 6, 6, 6)
    wanted, parameters = model[:2](x), list(model.parameters())
    done = accelerate(model)
    assert done.swapped == ("1",)
    reasons = {
        "2": "its class Own may compute otherwise",
        "3.0": "its forward was replaced",
        "3.1": "it is convt's already",
        "4": "its class ParametrizedConvTranspose3d may compute otherwise",
        "5": "it is on the device meta",
        "6": "its dtype is torch.complex64",
        "7": "it has one tap and no stride: PyTorch is as fast",
    }
    assert done.kept == reasons
    assert str(done).splitlines()[:2] == [
        "1: convt",
        "2: kept, its class Own may compute otherwise",
    ]
    assert type(model[1]) is ConvTranspose3d
    torch.testing.assert_close(model[:2](x), wanted)
    assert len(calls) == 2
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    done.undo()
    done.undo()
    assert type(model[1]) is Theirs
    assert str(accelerate(torch.nn.Conv3d(1, 1, 1))) == "no transposed 3-D convolution"
    assert accelerate(Theirs(1, 1, 2)).swapped == ("",)


@pytest.mark.parametrize("name", ["DynUNet", "UNet"])
def test_monai_s_networks(name: str) -> None:
    """Trained and applied, with MONAI's own tensors."""
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    from monai.data import MetaTensor

    torch.manual_seed(0)
    if name == "UNet":
        model = networks.UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)
    else:
        model = networks.DynUNet(
            3, 1, 2, [3, 3, 3], [1, 2, (2, 2, 1)], [2, (2, 2, 1)], filters=[4, 8, 16]
        )
    x = torch.randn(1, 1, 16, 16, 16)
    model.eval()
    with torch.no_grad():
        wanted = model(x)
        done = accelerate(model)
        assert len(done.swapped) == 2, str(done)
        torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
        assert type(model(MetaTensor(x))) is MetaTensor
    gradients = []
    for swapped in (True, False):
        model.zero_grad()
        model(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        if swapped:
            done.undo()
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_page_s_examples(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "pytorch.md"
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(code, names)
    assert capsys.readouterr().out == "1: convt\n"
