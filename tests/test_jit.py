"""Object code is compiled once, kept privately, and trusted only where nobody else can have put it."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import convt
from convt import jit, target
from convt.kernels import emit
from convt.kernels.keys import Element, PackFilters
from processes import python
from tiny import Tiny

HOST = target.host()

# One call, checked; every kernel that was compiled for it is printed.
CALL = """
    import logging, sys
    import numpy as np
    import convt

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    x, w = np.ones((1, 2, 2, 2, 3), np.float32), np.ones((2, 2, 2, 8, 3), np.float32)
    assert np.array_equal(convt.conv3d_transpose(x, w, None, 2), np.full((1, 4, 4, 4, 8), 3.0))
"""


def compiled(folder: Path, before: str = "") -> int:
    """Run `before` and the call in a process that caches in `folder`; count what it compiled."""
    log = python(before + CALL, CONVT_CACHE_DIR=str(folder))
    return sum(line.startswith("compile ") for line in log.splitlines())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the objects of the call; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("cache") / "deep" / "objects"
    assert compiled(folder) == 2  # the kernel, and the one that packs its filters
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "objects"))


def objects(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.o"))


# --- the folder ---------------------------------------------------------------------------------
def test_a_second_process_compiles_nothing(filled: Path) -> None:
    before = [(path.name, path.stat().st_mtime_ns) for path in filled.iterdir()]
    assert len(before) == 2
    assert compiled(filled) == 0
    assert [(path.name, path.stat().st_mtime_ns) for path in filled.iterdir()] == before


def test_names_tell_the_kernels(filled: Path) -> None:
    names = [path.name for path in objects(filled)]
    assert [name.split("_")[:2] for name in names] == [["f32", "channels"], ["f32", "filters"]]


PACKAGE = Path(convt.__file__).parent
IMPORT = re.compile(r"^from convt\.(\w+) import", re.MULTILINE)
EMITTERS = "\n".join(path.read_text() for path in (PACKAGE / "kernels").glob("*.py"))
# What code is made by, and of: a version that differs in one of them reads no object of another.
SOURCES = ["kernels/sums", *sorted(set(IMPORT.findall(EMITTERS)) - {"kernels"})]


@pytest.mark.slow
@pytest.mark.parametrize("changed", SOURCES)
def test_another_version_compiles_its_own(changed: str, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(PACKAGE, tmp_path / "other" / "convt")
    before = f"    import sys; sys.path.insert(0, {str(other.parent)!r})\n"
    assert compiled(folder, before) == 0
    with (other / f"{changed}.py").open("a") as file:
        file.write("# another version\n")
    assert compiled(folder, before) == 2


def test_nobody_else_may_look_or_write(filled: Path) -> None:
    assert stat.S_IMODE(filled.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in objects(filled)] == [0o600] * 2


def flip(position: int) -> Callable[[bytes], bytes]:
    """Flip one bit."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"\0",
    "another kind": flip(0),
    "digest": flip(20),
    "code": flip(-100),
    "foreign": lambda data: b"\x7fELF" + bytes(1000),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_written_anew(damage: str, folder: Path) -> None:
    kernel, packing = objects(folder)
    good = kernel.read_bytes()
    kernel.write_bytes(DAMAGE[damage](good))
    assert compiled(folder) == 1
    assert kernel.read_bytes() == good
    assert objects(folder) == [kernel, packing]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_written_anew(mode: int, folder: Path) -> None:
    kernel, _ = objects(folder)
    kernel.chmod(mode)
    assert compiled(folder) == 1
    assert stat.S_IMODE(kernel.stat().st_mode) == 0o600
    assert compiled(folder) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_that_others_may_write_is_not_read(mode: int, folder: Path) -> None:
    folder.chmod(mode)
    assert compiled(folder) == 2
    assert compiled(folder) == 2


@pytest.mark.slow
def test_a_file_of_another_user_is_not_read(folder: Path) -> None:
    someone_else = "    import os; os.getuid = lambda: 12345\n"
    assert compiled(folder, someone_else) == 2


@pytest.mark.slow
def test_several_processes_at_once(tmp_path: Path) -> None:
    code = "import os; os.environ['CONVT_CACHE_DIR'] = 'objects'" + CALL.replace("\n    ", "\n")
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [child.wait(120) for child in children] == [0] * 4
    assert len(list((tmp_path / "objects").iterdir())) == 2  # and nothing half-written
    assert compiled(tmp_path / "objects") == 0


@pytest.mark.slow
def test_without_a_folder_it_compiles_every_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    impossible = tmp_path / "file" / "objects"
    assert compiled(impossible) == 2
    assert compiled(impossible) == 2


@pytest.mark.slow
def test_the_folder_is_the_user_s_or_the_one_that_is_named(tmp_path: Path) -> None:
    code = "from convt import jit; print(jit.cache_folder())"
    named = python(code, CONVT_CACHE_DIR="/somewhere/else", XDG_CACHE_HOME=str(tmp_path))
    assert named == "/somewhere/else\n"
    users = python(code, CONVT_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path))
    assert users == f"{tmp_path / 'convt' / 'objects'}\n"


# --- loading ------------------------------------------------------------------------------------
STORE = """
    define void @run(ptr %record, ptr %workspace) {
      store i64 42, ptr %record
      ret void
    }
"""


def test_a_kernel_is_loaded_once() -> None:
    function = jit.load(Tiny("test_once", lambda _: STORE), HOST)
    assert jit.load(Tiny("test_once", lambda _: "never read"), HOST) is function
    record = np.zeros(1, np.int64)
    function(record.ctypes.data, 0)
    assert record[0] == 42


def test_several_are_loaded_in_their_order() -> None:
    kernels = [
        Tiny(f"test_several_{n}", lambda _, n=n: STORE.replace("42", str(n)))  # type: ignore[misc]
        for n in (7, 8, 9)
    ]
    jit.load(kernels[1], HOST)
    record = np.zeros(1, np.int64)
    found = []
    for function in jit.load_all(kernels, HOST):
        function(record.ctypes.data, 0)
        found.append(int(record[0]))
    assert found == [7, 8, 9]


def test_threads_generate_code_side_by_side() -> None:
    kernel = PackFilters(Element("f32"), Element("f32"), block=16, tail=0)

    def generated(_: int) -> bytes:
        machine = jit._machine(HOST)
        return jit._object(jit._optimised(str(emit(kernel, HOST)), HOST, machine), machine)

    with ThreadPoolExecutor(4) as pool:
        codes = set(pool.map(generated, range(8)))
    assert codes == {generated(0)}


def test_one_wrong_among_several_is_an_error_each_time() -> None:
    wrong = Tiny("test_wrong_one", lambda _: "define void @run() { nonsense }")
    right = Tiny("test_right_one", lambda _: STORE)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            jit.load_all((wrong, right), HOST)
    jit.load(right, HOST)


@pytest.mark.parametrize(
    "text",
    [
        "define void @run(ptr %record) { ret i64 0 }",
        "define void @run() { nonsense }",
        "define void @run() { %a = add i64 %a, 1\n ret void }",
    ],
)
def test_wrong_code_is_an_error_each_time(text: str) -> None:
    kernel = Tiny(f"test_wrong_{len(text)}", lambda _: text)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            jit.load(kernel, HOST)
    assert not list(jit.cache_folder().glob(f"{kernel.name}*"))


def test_assembly_is_text() -> None:
    text = jit.assembly(Tiny("test_assembly", lambda _: STORE), HOST)
    assert "run:" in text
    assert "42" in text


# --- no executable memory -----------------------------------------------------------------------
FORBIDDEN = """
    import ctypes, sys, warnings
    import numpy as np
    import convt
    from convt import jit, reference

    if sys.argv[-1] == "kernel":  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
        if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
            print("unknown")
            raise SystemExit
    else:
        jit.can_execute = lambda: False
    assert not jit.can_execute()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 3, 4, 5)).astype(np.float32)
    w = rng.standard_normal((3, 2, 3, 8, 3)).astype(np.float32)
    bias, out = np.ones(8, np.float32), np.empty((2, 8, 6, 7, 9), np.float32)
    keywords = dict(data_format="NCDHW", bias=bias, groups=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            y = convt.conv3d_transpose(x, w, [2, 8, 6, 7, 9], 2, out=out, threads=2, **keywords)
    assert y is out
    assert np.array_equal(y, reference.conv3d_transpose(x, w, [2, 8, 6, 7, 9], 2, **keywords))
    try:
        convt.conv3d_transpose(x, w, [2, 8, 6, 6, 9], 2, **keywords)
    except ValueError:
        for warning in caught:
            print(warning.category.__name__, warning.filename, warning.message)
"""


def forbidden(how: str) -> str:
    return python(FORBIDDEN.replace("sys.argv[-1]", repr(how)))


@pytest.mark.parametrize("how", ["kernel", "pretended"])
def test_numpy_answers_where_memory_can_not_be_executable(how: str) -> None:
    said = forbidden(how)
    if said == "unknown\n":
        pytest.skip("this Linux can't forbid it")
    assert said == (
        "RuntimeWarning <string> this process may not make memory executable, so convt computes "
        "with NumPy: the same results, slowly\n"
    )


def test_memory_can_be_executable_here() -> None:
    assert jit.can_execute()
