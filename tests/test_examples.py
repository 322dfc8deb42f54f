"""Every example runs, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NEEDS = {
    "monai_unet.py": ("monai", "torch"),
    "port_tensorflow_weights.py": ("tensorflow", "torch"),
}
SAYS = {
    "monai_unet.py": "upsamples.0.transp_conv.conv: convt",
    "port_tensorflow_weights.py": "shifted by 1, the first 1 of each axis lost",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(path.name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS.get(path.name, "") in done.stdout
    assert f"python examples/{path.name}" in path.read_text()


def test_there_are_examples() -> None:
    assert set(NEEDS) <= {path.name for path in EXAMPLES}
