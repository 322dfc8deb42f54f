"""Keras' layer by convt: on each backend in a process of its own, against Keras' layer and each other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frameworks.forms import run_page

pytest.importorskip("keras", reason="Keras is not installed")

pytestmark = pytest.mark.slow  # a process for each backend

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `keras_backend.py` prints for each backend that is installed."""
    found = {}
    for backend in BACKENDS:
        if importlib.util.find_spec(backend):
            found[backend] = report(backend, tmp_path_factory.mktemp(backend))
    return found


def report(backend: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("keras_backend.py")), str(folder)],
        env=os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{backend}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=BACKENDS)
def found(request: pytest.FixtureRequest, reports: dict[str, Any]) -> Any:
    if request.param not in reports:
        pytest.skip(f"{request.param} is not installed")
    return reports[request.param]


def test_every_configuration_is_that_of_keras(found: Any) -> None:
    assert found["worst"] < 1e-4
    # TensorFlow's kernels lack NCDHW on the CPU, and one of Keras' sizes.
    lacking = 3 if found["backend"] == "tensorflow" else 0
    assert found["compared"] == found["count"] - lacking


def test_backends_agree_to_the_bit(reports: dict[str, Any]) -> None:
    assert len({(report["digest"], report["count"]) for report in reports.values()}) == 1


def test_fit_gives_the_losses_of_keras(found: Any) -> None:
    assert found["ours"][-1] < 0.9 * found["ours"][0]
    assert found["ours"] == pytest.approx(found["theirs"], rel=1e-5)


def test_mixed_precision(found: Any) -> None:
    assert found["mixed"] == "bfloat16"


def test_variables_go_with_tensors(found: Any) -> None:
    assert found["variables"]


def test_a_symbolic_tensor_is_told_where_to_go() -> None:
    keras = pytest.importorskip("keras")
    import convt

    x = keras.KerasTensor((1, 2, 2, 2, 3))
    with pytest.raises(TypeError, match=r"use the layer convt.keras.Conv3DTranspose"):
        convt.conv3d_transpose(x, x, None, 2)


def test_the_page_s_examples_run() -> None:
    names = run_page("keras.md")
    assert type(names["swapped"].layers[-1]) is type(names["model"].layers[-1])
