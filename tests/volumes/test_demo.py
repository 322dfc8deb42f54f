"""The demonstration: it leaves what it says, and its numbers are those of its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from convt.volumes import apply, read
from convt.volumes.demo import demonstrate


def test_demonstrate(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    result = demonstrate(folder, size=24, threads=1)
    assert sorted(folder.iterdir()) == sorted([result.before, result.after, result.picture])
    before, after = read(result.before), read(result.after)
    assert before.data.shape == result.input_shape == (24, 24, 24)
    assert after.data.shape == result.output_shape == (48, 48, 48)
    np.testing.assert_array_equal(after.data, apply(before, "trilinear", 2).data)
    assert before.affine is not None
    middle = before.affine @ [11.5, 11.5, 11.5, 1]
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-6)
    assert 0 < result.error < 1e-6
    assert result.seconds > 0
    # Along each axis two taps reach every output but the first and the last, which one reaches.
    assert result.gflops == pytest.approx(2e-9 * (2 * 48 - 2) ** 3 / result.seconds)
    assert imread(result.picture).ndim == 3


@pytest.mark.slow
def test_again_replaces_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = demonstrate(tmp_path, size=4)
    second = demonstrate(tmp_path, size=5)
    assert first.after == second.after
    assert read(second.after).data.shape == (10, 10, 10)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        demonstrate(tmp_path / "none", size=0)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        demonstrate(tmp_path / "file", size=4)
