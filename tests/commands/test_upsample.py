"""``convt upsample``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from convt.cli import run
from convt.volumes import Volume, read, upsample, write

CUBE = np.random.default_rng(0).random((9, 7, 11)).astype(np.float32)


@pytest.mark.slow
def test_a_volume_with_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.nii.gz", Volume((CUBE * 100).astype(np.int16), np.diag([2.0, 3, 4, 1])))
    names = [str(tmp_path / name) for name in ("a.nii.gz", "b.nii", "b.png")]
    options = ["--factor", "2,3,1", "--kernel", "cubic", "--keep-dtype", "--preview", names[2]]
    assert run(["upsample", names[0], "-o", names[1], *options]) == 0
    before, after = capsys.readouterr().out.splitlines()
    assert before == (f"{names[0]}: 9 x 7 x 11 int16, voxels of 2 x 3 x 4, computed in float32")
    assert after.startswith(f"{names[1]}: 18 x 21 x 11 int16, voxels of 1 x 1 x 4, ")
    assert after.endswith(" MB/s")
    expected = upsample(read(names[0]), (2, 3, 1), "cubic", keep_dtype=True)
    np.testing.assert_array_equal(read(names[1]).data, expected.data)
    assert imread(names[2]).shape[1] == 1320


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--factor", "2"], "a.npy: No such file or directory"),
        (["--factor", "two"], "--factor must be whole numbers"),
        (["--factor", "0"], "factor"),
        (["--factor", "2", "-k", "sinc"], "kernel must be trilinear, nearest, cubic, lanczos3"),
        (["--factor", "2", "--preview", "b.jpg"], "b.jpg: the name must end in .png"),
        ([], "--factor"),
    ],
)
def test_errors_are_one_line(
    options: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["upsample", "a.npy", "-o", "b.npy", *options]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
