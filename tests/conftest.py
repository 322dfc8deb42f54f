"""Settings of every test run: the environment, and how hypothesis searches.

Constraint of this file: pytest loads it before `convt` or a framework is imported. Hooks, not
fixtures, set the environment, since the docstring examples in src/ run before any fixture here.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest

# Log lines of TensorFlow below the level of errors would bury a failing test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# No test opens a window.
os.environ["MPLBACKEND"] = "Agg"

# The first example of a geometry compiles a kernel, so its time says nothing: no deadline.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

_cache_folder = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Point convt's cache of object code away from the user's own; parallel workers share one."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="convt-tests-")
    config.stash[_cache_folder] = folder
    os.environ["CONVT_CACHE_DIR"] = folder


def pytest_unconfigure(config: pytest.Config) -> None:
    if _cache_folder in config.stash:
        shutil.rmtree(config.stash[_cache_folder], ignore_errors=True)
