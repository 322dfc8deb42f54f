"""What a process of its own runs for one backend of Keras: prints one line of JSON for the tests to read.

Constraints of this file: Keras' backend is chosen once a process, so nothing here runs under pytest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import convt.keras

# Odd and even kernels, shorter and longer than strides; sizes that TensorFlow infers, and others; layouts.
LAYERS: list[dict[str, Any]] = [
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0},
    {"kernel_size": 3, "strides": 2, "padding": "valid", "output_padding": 1},
    {"kernel_size": (4, 5, 2), "strides": 2, "padding": "same"},
    {"kernel_size": (4, 5, 2), "strides": 2, "padding": "same", "output_padding": 0},
    {"kernel_size": 1, "strides": (3, 2, 1), "padding": "same"},
    {
        "kernel_size": (2, 3, 1),
        "padding": "same",
        "dilation_rate": 2,
        "data_format": "channels_first",
    },
    {"kernel_size": 3, "strides": (3, 2, 1), "padding": "valid", "data_format": "channels_first"},
]


def weights(rng: np.random.Generator, arguments: dict[str, Any]) -> list[Any]:
    kernel = np.broadcast_to(arguments["kernel_size"], 3)
    return [rng.standard_normal(shape).astype("float32") for shape in ((*kernel, 3, 2), (3,))]


def compare() -> dict[str, Any]:
    """Every layer's output: a digest of its bits, and how far Keras' own is from it."""
    rng = np.random.default_rng(0)
    digest, worst, compared, count = hashlib.sha256(), 0.0, 0, 0
    for arguments in LAYERS:
        last = "data_format" not in arguments
        shape = (2, 3, 4, 2, 2) if last else (2, 2, 3, 4, 2)
        x, values = rng.standard_normal(shape).astype("float32"), weights(rng, arguments)
        ours, theirs = (
            kind(3, **arguments)
            for kind in (convt.keras.Conv3DTranspose, keras.layers.Conv3DTranspose)
        )
        for layer in (ours, theirs):
            layer.build(x.shape)
            layer.set_weights(values)
        y = keras.ops.convert_to_numpy(ours(x))
        assert y.shape == tuple(ours.compute_output_shape(x.shape))
        digest.update(y.tobytes())
        count += 1
        try:
            wanted = keras.ops.convert_to_numpy(theirs(x))
        except Exception as error:  # TensorFlow's CPU kernels lack a layout, and SAME some sizes
            if "InvalidArgumentError" not in type(error).__name__:
                raise
            continue
        compared += 1
        worst = max(worst, float(np.abs(y - wanted).max()))
    return {"digest": digest.hexdigest(), "worst": worst, "count": count, "compared": compared}


def model(kind: Any) -> Any:
    """A small autoencoder."""
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 8, 1)),
            keras.layers.Conv3D(8, 3, strides=2, padding="same", activation="tanh"),
            kind(1, 3, strides=2, padding="same", kernel_regularizer=keras.regularizers.L2(1e-3)),
        ]
    )


def train(kind: Any) -> list[float]:
    """The losses of 20 steps of `fit`."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(1).standard_normal((4, 8, 8, 8, 1)).astype("float32")
    trained = model(kind)
    trained.compile(optimizer=keras.optimizers.SGD(0.3), loss="mse")
    found = trained.fit(x, x, batch_size=4, epochs=20, verbose=0)
    return [float(loss) for loss in found.history["loss"]]


def save(folder: Path) -> None:
    """Files and weights go from each layer to the other, and from each model to itself."""
    x = np.random.default_rng(2).standard_normal((1, 8, 8, 8, 1)).astype("float32")
    ours, theirs = model(convt.keras.Conv3DTranspose), model(keras.layers.Conv3DTranspose)
    ours.save(folder / "ours.keras")
    ours.save_weights(folder / "ours.weights.h5")
    theirs.load_weights(folder / "ours.weights.h5")
    loaded = keras.models.load_model(folder / "ours.keras")
    assert type(loaded.layers[-1]) is convt.keras.Conv3DTranspose
    assert loaded.layers[-1].get_config() == ours.layers[-1].get_config()
    wanted = ours.predict(x, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), wanted)
    np.testing.assert_allclose(theirs.predict(x, verbose=0), wanted, atol=1e-5)
    swapped = keras.models.clone_model(
        theirs,
        clone_function=lambda layer: (
            convt.keras.Conv3DTranspose.from_config(layer.get_config())
            if type(layer) is keras.layers.Conv3DTranspose
            else layer.__class__.from_config(layer.get_config())
        ),
    )
    swapped.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(swapped.predict(x, verbose=0), wanted)


def mixed() -> str:
    """The dtype of an output under a mixed policy."""
    layer = convt.keras.Conv3DTranspose(3, 2, dtype="mixed_bfloat16")
    return str(keras.backend.standardize_dtype(layer(np.ones((1, 2, 2, 2, 2), "float32")).dtype))


def variables() -> bool:
    """Whether the function takes Keras' variables beside tensors of the backend."""
    x, w = keras.ops.ones((1, 2, 2, 2, 3)), keras.Variable(np.ones((2, 2, 2, 4, 3), "float32"))
    y = convt.conv3d_transpose(x, w, None, 2)
    return type(y) is type(x) and tuple(y.shape) == (1, 4, 4, 4, 4)


def main() -> None:
    """Everything, for the backend that ``KERAS_BACKEND`` names."""
    save(Path(sys.argv[1]))
    report = {
        "backend": keras.backend.backend(),
        **compare(),
        "ours": train(convt.keras.Conv3DTranspose),
        "theirs": train(keras.layers.Conv3DTranspose),
        "mixed": mixed(),
        "variables": variables(),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
