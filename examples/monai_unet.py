"""Swap the up-convolutions of MONAI's U-Nets for convt's, compare the outputs and time both.

    python examples/monai_unet.py

Trained networks are swapped the same way: `accelerate` touches no parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from monai.networks.nets import DynUNet, UNet

from convt.torch import accelerate

SIZE = 32  # voxels of the input on each axis
TURNS = 3


def networks() -> dict[str, Any]:
    """A U-Net, and the network of nnU-Net, with fewer channels than usual."""
    torch.manual_seed(0)
    return {
        "UNet": UNet(3, 1, 2, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1),
        "DynUNet": DynUNet(
            3, 1, 2, [3] * 4, [1, 2, 2, 2], upsample_kernel_size=[2] * 3, filters=[16, 32, 64, 128]
        ),
    }


def inputs_of(layers: dict[str, Any], run: Callable[[], Any]) -> dict[str, Any]:
    """What each layer is given while the network runs."""
    inputs: dict[str, Any] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
        for name, layer in layers.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return inputs


def milliseconds(call: Callable[[], Any]) -> float:
    """The time of a call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


@torch.no_grad()
def compare(name: str, model: Any) -> None:
    """Print what is swapped, how far outputs differ and how long both take."""
    model.eval()
    x = torch.randn(1, 1, SIZE, SIZE, SIZE)
    layers = {n: m for n, m in model.named_modules() if type(m) is torch.nn.ConvTranspose3d}
    inputs = inputs_of(layers, lambda: model(x))

    def network() -> Any:
        return model(x)

    def up_convolutions() -> Any:
        return [layer(inputs[name]) for name, layer in layers.items()]

    # PyTorch and convt take turns, so that other load on the machine meets both.
    least: dict[Any, float] = {}
    outputs = {}
    for turn in range(TURNS):
        for library in ("PyTorch", "convt"):
            done = accelerate(model) if library == "convt" else None
            outputs[library] = network()
            for call in (network, up_convolutions):
                key = library, call.__name__
                least[key] = min(milliseconds(call), least.get(key, float("inf")))
            if done:
                done.undo()
                if turn == 0:
                    print(f"{name}, an input of {SIZE} x {SIZE} x {SIZE} voxels\n{done}")
    torch.testing.assert_close(outputs["convt"], outputs["PyTorch"], rtol=1e-5, atol=1e-5)
    error = (outputs["convt"] - outputs["PyTorch"]).abs().max().item()
    print(f"largest difference of the outputs: {error:.1e}")
    for call in (network, up_convolutions):
        theirs, ours = (least[library, call.__name__] for library in ("PyTorch", "convt"))
        what = call.__name__.replace("_", "-")
        print(f"{what:16} PyTorch {theirs:7.1f} ms   convt {ours:7.1f} ms")


if __name__ == "__main__":
    for name, model in networks().items():
        compare(name, model)
