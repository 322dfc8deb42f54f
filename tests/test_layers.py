"""Who imports whom: the table in ARCHITECTURE.md, kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import convt
from processes import python

PACKAGE = Path(convt.__file__).parent
PAGE = Path(__file__).parent.parent / "ARCHITECTURE.md"
FRAMEWORKS = {"cupy", "dask", "jax", "keras", "tensorflow", "torch", "onnx", "onnxruntime"}
CLI = {"matplotlib", "nibabel", "rich", "typer", "PIL"}


def table() -> dict[str, int]:
    """The row of every name in the table."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    # Names beside a remark in brackets are no modules of ours.
    named = ((int(row), re.sub(r"\(.*?\)", "", names)) for row, names in rows)
    return {name: row for row, names in named for name in re.findall(r"`([\w.]+)`", names)}


ROWS = table()
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.name != "__init__.py"
}


def imports(path: Path) -> Iterator[str]:
    """Every import in a file, in functions too, as `package.module` or `package.module.name`."""
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    yield node
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from walk(child)


def known(name: str) -> str | None:
    """The entry of the table that a module of the package belongs to."""
    while name and name not in ROWS:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_rows_above_and_its_own(module: str) -> None:
    mine = known(module)
    assert mine, f"{module} is in no row of the table"
    for name in imports(MODULES[module]):
        package, _, rest = name.partition(".")
        if package != "convt":
            continue
        # What has no row of its own is a public name, which only those above the interface use.
        row = ROWS[known(rest) or "api"]
        assert row < ROWS[mine] or (row == ROWS[mine] and known(rest)), f"{module} imports {name}"


def test_every_name_in_the_table_is_a_module() -> None:
    assert set(ROWS) <= set(MODULES)


LIBRARY = [module for module in MODULES if ROWS[known(module) or "api"] <= ROWS["api"]]


@pytest.mark.parametrize("module", LIBRARY)
def test_what_a_module_may_load(module: str) -> None:
    loads = {".".join(name.split(".")[:2]) for name in imports(MODULES[module])}
    packages = {name.partition(".")[0] for name in loads}
    assert not packages & FRAMEWORKS
    assert not packages & CLI or module == "report_plot"
    assert "llvmlite.ir" not in loads
    assert "llvmlite.binding" not in loads or module in ("jit", "target")


@pytest.mark.parametrize(
    "module",
    [
        "geometry",
        "transforms",
        "fold",
        "fast",
        "family",
        "cut",
        "plan",
        "gradient_plan",
        "kernels.keys",
    ],
)
def test_planning_touches_no_array(module: str) -> None:
    assert "numpy" not in {name.partition(".")[0] for name in imports(MODULES[module])}


def loaded(code: str) -> set[str]:
    names = python(f"import convt, sys; {code}; print(*sys.modules)").split()
    return {name.partition(".")[0] for name in names} | {n for n in names if n.startswith("convt.")}


def test_importing_convt_loads_little() -> None:
    assert not loaded("pass") & (FRAMEWORKS | CLI | {"numpy", "llvmlite", "convt.plan"})


def test_its_functions_load_no_compiler() -> None:
    names = loaded("convt.conv3d_transpose, convt.ConvTranspose3D, convt.conv3d")
    assert {"numpy", "convt.plan"} <= names
    assert not names & (FRAMEWORKS | CLI | {"llvmlite", "platformdirs", "hypothesis"})


PLAN = """
    import sys
    from convt.plan import Access, make_plan
    from convt.spec import make_spec
    from convt.target import ISAS, named

    spec = make_spec(
        input_shape=(1, 4, 4, 4, 8), input_dtype="float32", filters_shape=(3, 3, 3, 16, 8),
        filters_dtype="float32", output_shape=None, strides=2, padding="SAME",
        data_format=None, dilations=None)
    for isa in ISAS:
        make_plan(spec, named(isa.level, "", isa), Access(), 1)
    print("llvmlite" in sys.modules)
"""


def test_planning_loads_no_compiler() -> None:
    assert python(PLAN) == "False\n"
