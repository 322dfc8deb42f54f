"""Streaming: the bits of the whole, within the memory, through interruptions and failures."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convt import cli
from convt.blocks import Blocks
from convt.volumes import StreamError, VolumeError, apply, stream, upsample
from convt.volumes.journal import Journal
from convt.volumes.regions import grid, sizes_of
from convt.volumes.stores import create_sink, open_source
from convt.volumes.stream import block_sizes, parse_memory
from processes import limited

zarr: Any = pytest.importorskip("zarr")

CUBE = np.random.default_rng(0).normal(size=(40, 36, 44)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 4, 3, 1, 1)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small volume, which is streamed in many small blocks."""
    monkeypatch.setattr(stream, "_SMALLEST", 0)
    zarr.create_array(tmp_path / "in.zarr", data=CUBE, chunks=(16, 16, 16))
    return tmp_path / "in.zarr"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {os.fspath(path.relative_to(folder)): path.read_bytes() for path in files}


# --- results --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_streamed_volume_has_the_bits_of_one_in_memory(store: Path, tmp_path: Path) -> None:
    expected = apply(CUBE, KERNEL, (2, 1, 3), bias=np.ones(1))
    for threads in (1, 3):
        told: list[tuple[int, int]] = []

        def tell(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        apply(
            store, KERNEL, (2, 1, 3), bias=np.ones(1), output=tmp_path / "out.zarr", force=True,
            threads=threads, progress=tell,
        )  # fmt: skip
        found = zarr.open_array(tmp_path / "out.zarr")[:]
        assert found.tobytes() == expected.tobytes()
        assert told == sorted(told)
        assert len(told) > threads
        assert (told[0], told[-1]) == ((0, found.nbytes), (found.nbytes, found.nbytes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.zarr"]


@pytest.mark.slow
def test_channels_minimal_filtering_and_both_layouts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 4, 64, 64)).astype(np.float32)
    last = rng.normal(size=(12, 13, 14, 64)).astype(np.float32)
    np.save(tmp_path / "last.npy", last)
    np.save(tmp_path / "first.npy", np.ascontiguousarray(np.moveaxis(last, 3, 0)))
    for name, layout in (("last", "NDHWC"), ("first", "NCDHW")):
        volume = np.load(tmp_path / f"{name}.npy")
        expected = apply(volume, kernel, 2, data_format=layout)
        apply(
            tmp_path / f"{name}.npy", kernel, 2, data_format=layout,
            output=tmp_path / f"{name}-out.npy",
        )  # fmt: skip
        assert np.load(tmp_path / f"{name}-out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_whole_numbers_are_rounded_back_on_request(dtype: str, tmp_path: Path) -> None:
    limits = np.iinfo(dtype)
    volume = np.random.default_rng(0).integers(limits.min, limits.max, (9, 8, 7)).astype(dtype)
    np.save(tmp_path / "in.npy", volume)
    apply(tmp_path / "in.npy", 1.5 * KERNEL, 2, output=tmp_path / "out.npy", keep_dtype=True)
    exact = apply(volume.astype(np.float32), 1.5 * KERNEL, 2)
    assert exact.min() < limits.min
    assert exact.max() > limits.max
    expected = np.clip(np.rint(exact), limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    np.testing.assert_array_equal(apply(volume, 1.5 * KERNEL, 2, keep_dtype=True), expected)
    apply(tmp_path / "in.npy", 1.5 * KERNEL, 2, output=tmp_path / "wide.npy")
    assert np.load(tmp_path / "wide.npy").dtype == np.float32


@pytest.mark.slow
def test_a_cluster_computes_the_same(store: Path, tmp_path: Path) -> None:
    distributed: Any = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1"}
    with distributed.LocalCluster(processes=True, dashboard_address=None, **settings) as cluster:
        for suffix in (".zarr", ".nii.gz"):
            output = tmp_path / f"out{suffix}"
            apply(store, KERNEL, 2, output=output, scheduler=cluster.scheduler_address)
            source = open_source(output)
            n, d, h, w, c = ((0, size) for size in source.shape)
            found = source.read((n, d, h, w, c))[0, ..., 0]
            np.testing.assert_array_equal(found, apply(CUBE, KERNEL, 2))
        (store / "c" / "1" / "2" / "2").write_bytes(b"not what zstd makes")
        with pytest.raises(StreamError, match=r"in\.zarr: can't be read"):
            apply(
                store, KERNEL, 2, output=tmp_path / "bad.zarr",
                scheduler=cluster.scheduler_address,
            )  # fmt: skip
    assert not (tmp_path / "bad.zarr").exists()


def test_no_cluster_is_said(store: Path, tmp_path: Path, capsys: Any) -> None:
    line = ["apply", str(store), "-fnearest", "-s2", f"-o{tmp_path / 'out.zarr'}"]
    assert cli.run([*line, "--scheduler", "nonsense://here"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"convt: nonsense://here: no Dask scheduler answers there: .*\n", error)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


# --- memory ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "size"),
    [("1GiB", 1 << 30), ("1.5g", 3 << 29), ("512 MB", 1 << 29), ("4096", 4096), (7, 7)],
)
def test_sizes_of_memory(given: Any, size: int) -> None:
    assert parse_memory(given) == size


@pytest.mark.parametrize("given", ["much", "", "-1", "0", 0, "1.2.3g", True])
def test_refused_sizes_of_memory(given: Any) -> None:
    with pytest.raises(ValueError, match="memory must be bytes or a size such as 1GiB, got"):
        parse_memory(given)


class Planned:
    """Blocks that take what they hold, and nothing is computed."""

    signature, resident = "", 0

    def input_region(self, region: Any) -> Any:
        return region

    def bytes(self, region: Any) -> int:
        return 4 * int(np.prod(sizes_of(region)))

    def __call__(self, block: Any, region: Any) -> Any:
        return block


def test_blocks_are_multiples_of_chunks_and_fit_the_memory(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_resident", lambda: 100 << 20)
    shape = (1, 2000, 2000, 2000, 1)
    for suffix in (".zarr", ".npy", ".nii", ".tif"):
        sink = create_sink(
            tmp_path / f"out{suffix}", shape=shape, dtype=np.float32, like=open_source(store)
        )
        for memory in (400 << 20, 1 << 30, 8 << 30):
            block = block_sizes(sink, Planned(), memory, 2)
            whole_chunks = zip(block, sink.grain, sink.shape, strict=True)
            assert all(size % grain == 0 or size == most for size, grain, most in whole_chunks)
            assert 4 * np.prod(block) * 2 < memory
            assert len(list(grid(shape, block))) < 40_000
            kept = stream._left(Planned(), block, memory, 2)
            assert (100 << 20) + stream._SPARE + 8 * np.prod(block) + kept <= memory
            assert kept == stream._KEPT or memory < 8 << 30
        if suffix == ".npy":
            assert block[2:4] == (2000, 2000)
        if suffix == ".nii":
            assert block[1:3] == (2000, 2000)


def test_too_little_memory_is_said_before_anything_is_made(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory of 1024 bytes is too little for"):
        apply(store, KERNEL, 2, output=tmp_path / "out.zarr", memory=1024)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


LARGE = """
    import numpy as np
    from convt.volumes import apply

    np.lib.format.open_memmap("in.npy", "w+", np.float32, (512, 512, 512))[5, 6, 7] = 1
    apply("in.npy", "nearest", 2, output="out.npy", memory="1GiB")
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read there")
def test_the_bound_of_memory_is_kept(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 6 << 30:
        pytest.skip("needs 5 GiB of disk")
    line = [sys.executable, "-c", textwrap.dedent(LARGE)]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=True
    )
    output = tmp_path / "out.npy"
    assert output.stat().st_size > 4 << 30
    assert int(done.stdout) << 10 < 1 << 30
    assert np.load(output, mmap_mode="r")[10:12, 12:14, 14:16].all()
    output.unlink()


CHUNKED = """
    import numpy as np
    import zarr
    from convt.volumes import upsample

    shape = (320, 320, 320)
    array = zarr.create_array("in.zarr", shape=shape, chunks=(64, 64, 64), dtype="f4")
    array[...] = np.broadcast_to(np.arange(320, dtype=np.float32), shape)
    upsample("in.zarr", (1, 1, 2), output="out.zarr", memory="256MiB", threads=2)
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read there")
def test_the_bound_of_memory_is_kept_with_the_chunks_that_are_kept(tmp_path: Path) -> None:
    line = [sys.executable, "-c", textwrap.dedent(CHUNKED)]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) << 10 < 256 << 20  # the whole source would not fit beside the blocks
    row = zarr.open_array(tmp_path / "out.zarr")[77, 99]
    assert (row == upsample(np.arange(320, dtype=np.float32)[None, None], (1, 1, 2))).all()


# --- interruptions --------------------------------------------------------------------------------
def line_of(store: Path, output: Path) -> list[str]:
    """A command line of a run of many blocks."""
    return [
        sys.executable, "-m", "convt.cli", "apply", str(store), "-f", "trilinear", "-s", "2",
        "-o", str(output), "--resume", "--threads", "2",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL there")
@pytest.mark.parametrize("suffix", [".zarr", ".npy"])
def test_killed_at_random_and_gone_on_with(suffix: str, tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(96, 96, 96)).astype(np.float32)
    store = tmp_path / "in.zarr"
    zarr.create_array(store, data=volume, chunks=(16, 16, 16), compressors=None)
    undisturbed, output = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    subprocess.run(line_of(store, undisturbed), check=True, capture_output=True, timeout=120)
    journals = (Path(f"{output}.part.journal"), Path(f"{output}.part", ".convt-journal"))
    chosen = random.Random(0)
    kills, before = 0, 0
    for _ in range(3 if suffix == ".zarr" else 2):
        until = before + chosen.randint(1, 4)
        running = subprocess.Popen(line_of(store, output), stdout=subprocess.DEVNULL)
        while running.poll() is None:
            if _finished(journals) >= until:
                running.kill()
                kills += 1
                break
            time.sleep(0.01)
        running.wait()
        assert _finished(journals) >= before  # what is recorded stays
        before = _finished(journals)
        if running.returncode == 0:
            break
        assert not output.exists()
    assert kills >= 2
    subprocess.run(line_of(store, output), check=True, capture_output=True, timeout=120)
    if suffix == ".zarr":
        assert content(output) == content(undisturbed)
    else:
        assert output.read_bytes() == undisturbed.read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.zarr", f"out{suffix}", f"whole{suffix}"}


def _finished(journals: tuple[Path, ...]) -> int:
    for journal in journals:
        if journal.exists():
            return max(journal.read_text().count("\n") - 1, 0)
    return 0


def after(blocks: int, happen: Callable[[], Any]) -> Callable[..., Any]:
    """`Blocks.compute` that lets something happen at its call number `blocks`."""
    compute, calls = Blocks.compute, iter(range(10**6))

    def counted(self: Blocks, *arguments: Any) -> Any:
        if next(calls) == blocks:
            happen()
        return compute(self, *arguments)

    return counted


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)  # the main thread takes it


@pytest.mark.parametrize("suffix", [".zarr", ".npy", ".nii.gz", ".tif", ".h5"])
def test_an_interrupt_leaves_what_resume_goes_on_with(
    suffix: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / f"out{suffix}"
    line = ["apply", str(store), "-fnearest", "-s2", f"-o{output}", "--threads", "1"]
    monkeypatch.setattr(Blocks, "compute", after(4, interrupt))
    assert cli.run(line) == 130
    assert not output.exists()
    assert Path(f"{output}.part").exists()
    assert cli.run(line) == 2  # neither --resume nor --force
    text = f"convt: {output}.part: is unfinished; --resume goes on with it, --force starts anew\n"
    assert capsys.readouterr().err == text
    calls = iter(range(10**6))
    monkeypatch.setattr(Blocks, "compute", after(10**7, lambda: None))
    compute = Blocks.compute

    def counted(self: Blocks, *arguments: Any) -> Any:
        next(calls)
        return compute(self, *arguments)

    monkeypatch.setattr(Blocks, "compute", counted)
    assert cli.run([*line, "--resume"]) == 0
    resumed = next(calls)
    source = open_source(output)
    n, d, h, w, c = ((0, size) for size in source.shape)
    found = source.read((n, d, h, w, c))[0, ..., 0]
    np.testing.assert_array_equal(found, apply(CUBE, "nearest", 2))
    assert cli.run([*line, "--resume"]) == 2  # it is finished
    calls = iter(range(10**6))
    assert cli.run([*line, "--force"]) == 0
    assert next(calls) - resumed >= 3  # blocks that were not computed again
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.zarr", output.name])


def test_another_job_does_not_go_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blocks, "compute", after(4, interrupt))
    with pytest.raises(KeyboardInterrupt):
        apply(store, KERNEL, 2, output=tmp_path / "out.npy", threads=1)
    with pytest.raises(VolumeError, match="started with another operation; start anew"):
        apply(store, 2 * KERNEL, 2, output=tmp_path / "out.npy", threads=1, resume=True)
    with pytest.raises(ValueError, match="too little for the blocks of the unfinished volume"):
        apply(store, KERNEL, 2, output=tmp_path / "out.npy", memory=4096, resume=True)
    # Other threads and another memory go on with the blocks that there are.
    apply(store, KERNEL, 2, output=tmp_path / "out.npy", threads=3, memory="2GiB", resume=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), apply(CUBE, KERNEL, 2))


def test_a_journal_reads_what_was_written_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    job = {"blocks": [1, 2]}
    journal = Journal(path, job, resume=False)
    journal.add(3)
    journal.add(12)
    with Path(path).open("a") as file:
        file.write("1")  # of 14: the process ended
    again = Journal(path, job, resume=True)
    assert again.done == {3, 12}
    again.add(14)
    assert Journal(path, job, resume=True).done == {3, 12, 14}
    Path(path).write_text("")
    with pytest.raises(VolumeError, match="is no journal of an unfinished volume"):
        Journal(path, job, resume=True)


# --- failures -------------------------------------------------------------------------------------
def fails(capsys: Any, *line: Any) -> str:
    """The line that a failing command prints."""
    assert cli.run([str(word) for word in line]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"convt: [^\n]+\n", printed.err)
    return str(printed.err).removeprefix("convt: ").rstrip("\n")


def test_an_unreadable_chunk(store: Path, tmp_path: Path, capsys: Any) -> None:
    chunk = store / "c" / "2" / "2" / "2"
    chunk.write_bytes(b"not what zstd makes")
    line = fails(capsys, "apply", store, "-fnearest", "-s2", "-o", tmp_path / "out.zarr")
    assert line.startswith(f"{store}: can't be read")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("suffix", [".zarr", ".npy"])
def test_a_file_that_vanishes(
    suffix: str, store: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / f"moving{suffix}"
    if suffix == ".zarr":
        store.rename(source)
    else:
        np.save(source, CUBE)
    monkeypatch.setattr(Blocks, "compute", after(3, lambda: source.rename(tmp_path / "moved")))
    line = fails(capsys, "apply", source, "-fnearest", "-s2", "-o", tmp_path / "out.npy")
    assert line.startswith(f"{source}: can't be read: ")
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a limit that only POSIX systems have")
def test_a_disk_that_fills_on_the_way(store: Path, tmp_path: Path) -> None:
    line = line_of(store, tmp_path / "out.zarr")
    done = subprocess.run(
        limited(line, 6000), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"convt: .*out\.zarr: can't be written: File too large\n", done.stderr)
    assert not (tmp_path / "out.zarr").exists()
    subprocess.run(line, check=True, capture_output=True, timeout=60)  # there is room again
    assert (zarr.open_array(tmp_path / "out.zarr")[:] == apply(CUBE, "trilinear", 2)).all()


def test_arguments_of_streams_go_with_an_output(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", CUBE)
    with pytest.raises(ValueError, match="memory, scheduler, resume, force and progress go with"):
        apply(tmp_path / "in.npy", "nearest", 2, memory="1GiB")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="with output, volume must be a path, got ndarray"):
        apply(CUBE, "nearest", 2, output=tmp_path / "out.npy")  # type: ignore[call-overload]
