"""The command line: what it prints, what it leaves, and one line with exit code 2 for an error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as typed_nibabel
import numpy as np
import pytest

import convt
from convt import cli
from convt.volumes import read, shepp_logan, write
from processes import limited

nibabel: Any = typed_nibabel  # its types stop at half of its functions
MRI = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"

Run = Callable[..., str]


@pytest.fixture
def ok(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line that must succeed, and return what it printed."""

    def run(*arguments: Any) -> str:
        code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, "")
        return captured.out

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line that must fail, and return the one line that it printed."""

    def run(*arguments: Any) -> str:
        code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert re.fullmatch(r"convt: .+\n", captured.err)
        return captured.err.removeprefix("convt: ").rstrip("\n")

    return run


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.npy"
    write(path, shepp_logan(6))
    return path


def process(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convt.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# --- help and version -----------------------------------------------------------------------------
def test_version(ok: Run) -> None:
    assert ok("--version") == f"convt {convt.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(ok: Run, arguments: tuple[str, ...]) -> None:
    text = ok(*arguments)
    for command in ("demo", "apply", "explain", "info"):
        assert re.search(rf"\b{command}\b", text)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", ["--output", "--size", "--threads"]),
        (
            "apply",
            ["--filters", "--strides", "--output", "--padding", "--output-shape", "--dilations",
             "--data-format", "--groups", "--bias", "--preview", "--force", "--threads",
             "--keep-dtype", "--memory", "--scheduler", "--resume"],
        ),
        (
            "explain",
            ["--input", "--filters", "--strides", "--output-shape", "--padding", "--data-format",
             "--dilations", "--dtype", "--groups", "--threads", "--html", "--plot"],
        ),
    ],
)  # fmt: skip
def test_help_of_commands(ok: Run, command: str, options: list[str]) -> None:
    text = ok(command, "--help")
    for option in options:
        assert option in text


# --- apply ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_apply_the_mri_that_nibabel_ships(ok: Run, tmp_path: Path) -> None:
    fine, preview = tmp_path / "fine.nii.gz", tmp_path / "fine.png"
    text = ok("apply", MRI, "-f", "trilinear", "-s", 2, "-o", fine, "--preview", preview)
    assert text.splitlines()[0] == (
        f"{MRI}: 33 x 41 x 25 int16, voxels of 2 x 2 x 2, computed in float32"
    )
    line = (
        rf"{re.escape(str(fine))}: 66 x 82 x 50 float32, voxels of 1 x 1 x 1, [\d.e+]+ ms, .* MB/s"
    )
    assert re.fullmatch(line, text.splitlines()[1])
    before, after = nibabel.load(MRI), nibabel.load(fine)
    assert after.shape == (66, 82, 50)
    assert after.header.get_zooms() == (1, 1, 1)
    assert after.header.get_xyzt_units() == before.header.get_xyzt_units()
    # The brightest voxel and the middle of the block that it became are at one place.
    peak = np.array([*np.unravel_index(np.asarray(before.dataobj).argmax(), before.shape), 1])
    block = np.array([*(2 * peak[:3] + 0.5), 1])
    np.testing.assert_allclose(after.affine @ block, before.affine @ peak, atol=1e-5)
    assert preview.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [fine, preview]


def test_apply_with_every_option(ok: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    volume = random.normal(size=(4, 5, 6, 7)).astype(np.float32)  # channels first
    filters = random.normal(size=(3, 2, 2, 6, 2))
    np.save(tmp_path / "volume.npy", volume)
    np.save(tmp_path / "filters.npy", filters)
    np.save(tmp_path / "bias.npy", np.arange(6.0))
    ok(
        "apply", tmp_path / "volume.npy", "--filters", tmp_path / "filters.npy",
        "--strides", "2,1,3", "--padding", "1,1,0,0,2,1", "--output-shape", "11,7,17",
        "--dilations", "2,1,1", "--data-format", "NCDHW", "--groups", 2, "--threads", 1,
        "--bias", tmp_path / "bias.npy", "--output", tmp_path / "out.npy",
        "--preview", tmp_path / "out.png",
    )  # fmt: skip
    expected = convt.conv3d_transpose(
        volume[None],
        filters.astype(np.float32),
        (1, 6, 11, 7, 17),
        (2, 1, 3),
        [(1, 1), (0, 0), (2, 1)],
        "NCDHW",
        (2, 1, 1),
        bias=np.arange(6, dtype=np.float32),
        groups=2,
    )[0]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert (tmp_path / "out.png").exists()


def test_channels_first_become_nifti_channels_last(ok: Run, tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.save(tmp_path / "volume.npy", volume)
    ok("apply", tmp_path / "volume.npy", "-f", "nearest", "-s", 1, "--data-format", "NCDHW",
       "-o", tmp_path / "out.nii")  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "out.nii").data, np.moveaxis(volume, 0, 3))


@pytest.mark.slow
def test_existing_files_are_kept_without_force(
    ok: Run, fails: Run, cube: Path, tmp_path: Path
) -> None:
    out, preview = tmp_path / "out.npy", tmp_path / "out.png"
    call = ("apply", cube, "-f", "nearest", "-s", 2, "-o", out, "--preview", preview)
    preview.write_bytes(b"mine")
    assert fails(*call) == f"{preview}: exists already; --force replaces it"
    assert not out.exists()
    out.write_bytes(b"mine")
    assert fails(*call[:-2]) == f"{out}: exists already; --force replaces it"
    assert (out.read_bytes(), preview.read_bytes()) == (b"mine", b"mine")
    ok(*call, "--force")
    assert read(out).data.shape == (12, 12, 12)
    assert preview.read_bytes().startswith(b"\x89PNG")


def test_a_volume_may_be_replaced_by_its_result(ok: Run, cube: Path) -> None:
    ok("apply", cube, "-f", "nearest", "-s", 2, "-o", cube, "--force")
    np.testing.assert_array_equal(read(cube).data[::2, ::2, ::2], shepp_logan(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "two"], "--strides must be whole numbers separated by commas, got 'two'"),
        (["-s", "2,,2"], "--strides must be whole numbers separated by commas, got '2,,2'"),
        (["-s", "2,2"], r"strides must be .* got 2: \[2, 2\]"),
        (["-s", "0"], r"strides\[0\] = 0 must be at least 1"),
        (["-s", "2", "--padding", "same"], "padding must be .* got 'same': write \"SAME\""),
        (["-s", "2", "--padding", "1,1"], "--padding must be SAME, VALID or six .* got '1,1'"),
        (["-s", "2", "--output-shape", "12,12,13"], r"output_shape\[3\] = 13 .* allowed 11 to 12"),
        (["-s", "2", "--data-format", "ndhwc"], 'data_format must be .* write "NDHWC"'),
        (["-s", "2", "--groups", "0"], "groups"),
        (["-s", "2", "--threads", "0"], "threads"),
        (["-s", "2", "--threads", "many"], "--threads.*"),
        (["-s", "2", "--frobnicate"], "No such option: --frobnicate .*see convt --help"),
        ([], "Missing option '--strides'"),
    ],
)
def test_arguments_that_are_refused(
    fails: Run, cube: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out.npy"
    filters = tmp_path / "filters.npy"
    np.save(filters, np.ones((2, 2, 2, 1, 1)))
    assert re.search(message, fails("apply", cube, "-f", filters, "-o", out, *arguments))
    assert sorted(tmp_path.iterdir()) == [cube, filters]


def test_files_that_are_missing_or_broken_name_themselves(
    fails: Run, cube: Path, tmp_path: Path
) -> None:
    none, bad = tmp_path / "none.npy", tmp_path / "bad.nii.gz"
    bad.write_bytes(b"nothing")
    call = ("-s", 2, "-o", tmp_path / "out.npy")
    assert fails("apply", none, "-f", "nearest", *call) == f"{none}: No such file or directory"
    assert fails("apply", cube, "-f", none, *call) == f"{none}: No such file or directory"
    assert fails("apply", bad, "-f", "nearest", *call).startswith(f"{bad}: can't be read as NIfTI")
    assert fails("apply", cube, "-f", "nearest", "-s", 2, "-o", tmp_path / "no" / "out.npy") == (
        f"{tmp_path / 'no'}: no such folder"
    )
    assert fails("apply", cube, "-f", "nearest", "-s", 2, "-o", tmp_path / "out.mha") == (
        f"{tmp_path / 'out.mha'}: the name must end in .npy, .nii, .nii.gz, .tif, .tiff, .zarr, .h5 "
        "or .hdf5"
    )
    assert fails("apply", cube, "-f", "nearest", *call, "--preview", "p.jpg") == (
        "p.jpg: the name must end in .png"
    )
    assert fails("apply", cube, "-f", "sinc", *call).startswith("filters must be an array, a .npy")
    assert sorted(tmp_path.iterdir()) == [bad, cube]


# --- explain and info -----------------------------------------------------------------------------
def test_explain(ok: Run, tmp_path: Path) -> None:
    page, plot = tmp_path / "page.html", tmp_path / "hits.png"
    text = ok(
        "explain", "--input", "1,4,4,4,8", "--filters", "3,3,3,16,8", "--strides", 2,
        "--html", page, "--plot", plot,
    )  # fmt: skip
    report = convt.explain((1, 4, 4, 4, 8), (3, 3, 3, 16, 8), None, 2)
    assert text == f"{report}\n"
    assert report._repr_html_() in page.read_text("utf-8")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_explain_passes_every_option(ok: Run) -> None:
    text = ok(
        "explain", "-i", "2,6,4,5,6", "-f", "3,3,3,8,3", "-s", "2,1,1", "--groups", 2,
        "--output-shape", "-1,8,-1,-1,-1", "--padding", "1,1,1,1,0,1", "--dtype", "float64",
        "--data-format", "NCDHW", "--dilations", "1,2,1", "--threads", 3,
    )  # fmt: skip
    report = convt.explain(
        (2, 6, 4, 5, 6), (3, 3, 3, 8, 3), (-1, 8, -1, -1, -1), (2, 1, 1),
        [(1, 1), (1, 1), (0, 1)], "NCDHW", (1, 2, 1), groups=2, dtype="float64", threads=3,
    )  # fmt: skip
    assert text == f"{report}\n"


def test_errors_of_kind_are_one_line_too(fails: Run) -> None:
    line = fails("explain", "-i", "1,4,4,4,8", "-f", "3,3,3,16,8", "-s", 2, "--dtype", "complex64")
    assert "complex64" in line


def test_explain_refuses(fails: Run, tmp_path: Path) -> None:
    shapes = ("explain", "-i", "1,4,4,4,8", "-f", "3,3,3,16,8", "-s", 2)
    assert "allowed 7 to 8" in fails(*shapes, "--output-shape", "1,9,8,8,16")
    assert "int32" in fails(*shapes, "--dtype", "int32")
    assert fails("explain", "-i", "4x4", "-f", "3", "-s", 2).startswith("--input must be whole")
    (tmp_path / "page.html").touch()
    assert "exists already" in fails(*shapes, "--html", tmp_path / "page.html")
    assert fails(*shapes, "--html", "page") == "page: the name must end in .html or .htm"


def test_info(ok: Run) -> None:
    text = ok("info")
    assert re.search(rf"convt +{re.escape(convt.__version__)}", text)
    assert re.search(r"instruction set +\S+, \d+ vectors of \d+ bits", text)
    assert re.search(rf"threads +{convt.get_num_threads()}", text)
    assert re.search(r"\d+ objects, [\d.]+ (MiB|KiB|bytes)", text)
    for library in ("numpy", "llvmlite", "ml_dtypes", "LLVM", "nibabel"):
        assert re.search(rf"{library} \d", text)


def test_info_without_a_cache_folder(
    ok: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVT_CACHE_DIR", str(tmp_path / "none"))
    assert "0 objects, 0 bytes" in ok("info")


# --- demo -----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_demo(ok: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second replaces the files of the first
        text = ok("demo", "--size", 12)
    folder = Path("convt-demo")
    assert f"picture: {folder / 'slices.png'}" in text
    assert (folder / "slices.png").exists()
    for pattern in (r"12 x 12 x 12", r"24 x 24 x 24", r"[\d.]+ ms", r"GFLOP/s", r"\de-0\d"):
        assert re.search(pattern, text)


def test_demo_refuses(fails: Run, tmp_path: Path) -> None:
    assert fails("demo", "--size", 0) == "size must be at least 1, got 0"
    (tmp_path / "file").touch()
    assert fails("demo", "-o", tmp_path / "file").startswith(f"{tmp_path / 'file'}: ")


# --- the process ----------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["apply"]])
def test_usage_errors(fails: Run, arguments: list[str]) -> None:
    assert fails(*arguments).endswith("(see convt --help)")


@pytest.mark.slow
@pytest.mark.parametrize("library", cli.EXTRA)
def test_a_missing_library_is_named(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from convt import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'convt: the command line needs {library}: pip install "convt[cli]"\n'


@pytest.mark.slow
def test_exit_codes_of_the_process() -> None:
    assert process("--version").returncode == 0
    failed = process("apply", "nothing.npy")
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a limit that only POSIX systems have")
@pytest.mark.parametrize("suffix", [".npy", ".nii"])
def test_a_disk_that_fills_leaves_nothing(cube: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    np.save(cube, np.ones((64, 64, 64), np.float32))
    line = [sys.executable, "-m", "convt.cli", "apply", str(cube), "-f", "nearest", "-s", "2", "-o"]
    line = limited([*line, str(out)], 1 << 20)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(rf"convt: {re.escape(str(out))}: .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == [cube]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_early_interrupt_leaves_nothing(
    cube: Path, tmp_path: Path, number: int, code: int
) -> None:
    script = f"""
        import os, sys, time
        from convt import cli
        from convt.blocks import Blocks

        compute = Blocks.compute

        once = iter([{number:d}])

        def interrupted(*arguments):
            for number in once:  # a second signal is a user's who can't wait
                os.kill(os.getpid(), number)
            time.sleep(0.3)
            return compute(*arguments)

        Blocks.compute = interrupted
        sys.argv[1:] = ["apply", {str(cube)!r}, "-fnearest", "-s2", "-o", {str(tmp_path / "out.npy")!r}]
        cli.main()
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert list(tmp_path.iterdir()) == [cube]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
@pytest.mark.parametrize("command", ["info", "--version"])
def test_a_reader_that_leaves_is_told_nothing(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "convt.cli", command]
    done = subprocess.run(
        line, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("error", [AssertionError("a defect"), TypeError("a defect")])
def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr("convt.jit.cache_folder", broken)
    with pytest.raises(type(error), match="a defect"):
        cli.run(["info"])
