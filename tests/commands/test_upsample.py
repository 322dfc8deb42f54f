"""``convt upsample``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from convt.cli import run
from convt.volumes import Volume, read, upsample, write


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


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


@pytest.mark.slow
def test_a_cluster_computes_the_same(tmp_path: Path) -> None:
    distributed: Any = pytest.importorskip("distributed")
    zarr: Any = pytest.importorskip("zarr")
    cube = (1000 * np.random.default_rng(1).random((40, 36, 44))).astype(np.uint16)
    zarr.create_array(tmp_path / "a.zarr", data=cube, chunks=(16, 16, 16))
    line = ["upsample", str(tmp_path / "a.zarr"), "--factor", "2,1,3", "-k", "lanczos3"]
    line += ["--keep-dtype", "-o"]
    assert run([*line, str(tmp_path / "here.zarr")]) == 0
    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1"}
    with distributed.LocalCluster(processes=True, dashboard_address=None, **settings) as cluster:
        there = [str(tmp_path / "there.zarr"), "--scheduler", cluster.scheduler_address]
        assert run([*line, *there]) == 0
        (tmp_path / "a.zarr" / "c" / "1" / "2" / "2").write_bytes(b"not what zstd makes")
        bad = [str(tmp_path / "bad.zarr"), "--scheduler", cluster.scheduler_address]
        assert run([*line, *bad]) == 1
    here, there_too = (content(tmp_path / name) for name in ("here.zarr", "there.zarr"))
    assert here == there_too
    assert len(here) > 20
    assert not (tmp_path / "bad.zarr").exists()


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
