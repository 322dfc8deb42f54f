"""The README's examples run, in the order in which a reader would try them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convt

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(), re.DOTALL)


def test_python_examples(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(code, names)
    printed = capsys.readouterr().out
    assert "output_shape[1] = 17" in printed
    assert "7 to 8" in printed  # the allowed sizes, as explain prints them


@pytest.mark.slow
def test_command_line_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convt.volumes import Volume, write

    monkeypatch.chdir(tmp_path)
    volume = np.random.default_rng(0).standard_normal((6, 7, 8)).astype(np.float32)
    write("brain.nii.gz", Volume(volume, np.eye(4)))
    np.save("volume.npy", volume)
    np.save("kernel.npy", np.ones((3, 3, 3), np.float32))
    commands = [
        line.partition("  #")[0].strip()
        for language, block in BLOCKS
        if language == "console"
        for line in block.splitlines()
        if line.startswith("convt ") and not line.startswith("convt demo")
    ]
    assert len(commands) >= 4
    for command in commands:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "bench":  # takes minutes; an option that it lacks fails beside help too
            arguments.append("--help")
        run = [sys.executable, "-m", "convt.cli", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert np.load("out.npy").shape == (13, 15, 10)
    assert Path("brain.png").stat().st_size > 0


def test_version_is_the_one_installed() -> None:
    text = (README.parent / "pyproject.toml").read_text()
    assert f'version = "{convt.__version__}"' in text
