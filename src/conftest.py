"""Doctests of adapters are left out where their framework is missing, and the run's header says so."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

FRAMEWORKS = ("dask", "jax", "keras", "tensorflow", "torch")
MISSING = [name for name in FRAMEWORKS if find_spec(name) is None]


def pytest_report_header() -> str:
    """Name the frameworks that are missing."""
    return f"convt: no doctests of {', '.join(MISSING)}: not installed" if MISSING else ""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the adapter of a missing framework."""
    parts = collection_path.with_suffix("").parts
    return True if any(parts[-2:] == ("convt", name) for name in MISSING) else None
