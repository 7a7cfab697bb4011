"""Compiling: nothing at import, cached where possible, and no worse where it is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fmknn
from fmknn._numba import SAFE_FASTMATH, kernel

PACKAGE = Path(fmknn.__file__).parent


def run(code, **environment):
    """Run code in a process of its own; it prints JSON."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=tempfile.gettempdir(),  # not where the package is: that would go before PYTHONPATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# --- importing ------------------------------------------------------------------------------


def test_importing_fmknn_imports_nothing_heavy():
    loaded = set(run("import sys, json, fmknn; print(json.dumps([n for n in sys.modules]))"))
    heavy = {"numba", "llvmlite", "faiss", "sklearn", "scipy", "narwhals", "pandas", "polars"}
    assert "fmknn" in loaded and not loaded & heavy


def test_every_public_name_can_be_had_without_scikit_learn():
    code = """
import sys, json, fmknn
missing = [name for name in fmknn.__all__ if not hasattr(fmknn, name)]
print(json.dumps([missing, "sklearn" in sys.modules, "faiss" in sys.modules]))
"""
    assert run(code) == [[], False, False]


def test_importing_the_kernels_compiles_none_of_them():
    code = """
import json
from fmknn.index import rank
from fmknn.model import kernels
from fmknn.solvers import adam_kernel
found = {}
for module in (kernels, adam_kernel, rank):
    for name, kernel in vars(module).items():
        if hasattr(kernel, "py_func"):
            found[name] = len(kernel.signatures)
print(json.dumps(found))
"""
    found = run(code)
    assert {"entity_vectors", "adam_epoch", "rank_candidates"} <= set(found)
    assert set(found.values()) == {0}


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="Recomender"):
        fmknn.Recomender  # noqa: B018


# --- what a kernel may assume ---------------------------------------------------------------


def test_fast_math_does_not_assume_that_numbers_are_finite():
    assert not SAFE_FASTMATH & {"nnan", "ninf", "fast"}

    @kernel
    def is_finite(x):
        return np.isfinite(x)

    assert [is_finite(x) for x in (1.0, np.nan, np.inf)] == [True, False, False]


def test_a_division_by_zero_gives_infinity_and_no_exception():
    @kernel
    def ratio(x, y):
        return x / y

    assert ratio(1.0, 0.0) == np.inf


def test_a_kernel_lets_go_of_the_gil():
    @kernel
    def nothing():
        return 0

    assert nothing.targetoptions["nogil"] is True


# --- the cache ------------------------------------------------------------------------------

TINY = """
from fmknn._numba import kernel

@kernel
def double(x):
    return 2.0 * x
"""

USE_TINY = """
import json, tiny
print(json.dumps([tiny.double(21.0), tiny.double.stats.cache_path]))
"""


def nowhere(folder):
    """Variables that leave numba no folder to cache in: paths below a regular file."""
    file = folder / "file"
    file.write_text("")
    names = ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "IPYTHONDIR")
    return {**{name: str(file / name) for name in names}, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def tiny(tmp_path):
    """A folder with a module that has one kernel."""
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "tiny.py").write_text(TINY)
    return folder


def search_path(folder):
    return os.pathsep.join([str(folder), str(PACKAGE.parent)])


def test_a_kernel_is_cached_where_it_can_be(tiny, tmp_path):
    cache = tmp_path / "cache"
    result, _ = run(USE_TINY, PYTHONPATH=search_path(tiny), NUMBA_CACHE_DIR=str(cache))
    assert result == 42 and list(cache.rglob("*.nbc"))


def test_a_kernel_is_compiled_without_a_cache_where_there_is_no_folder_for_it(tiny, tmp_path):
    (tiny / "__pycache__").write_text("a file, so that no folder can be made here")
    result, cached_in = run(USE_TINY, PYTHONPATH=search_path(tiny), **nowhere(tmp_path))
    assert result == 42 and cached_in is None


def test_another_folder_is_taken_where_the_named_one_is_unwritable(tiny, tmp_path):
    variables = nowhere(tmp_path)
    result, cached_in = run(
        USE_TINY, PYTHONPATH=search_path(tiny), NUMBA_CACHE_DIR=variables["NUMBA_CACHE_DIR"]
    )
    assert result == 42 and Path(cached_in).is_dir()


def test_the_package_works_from_a_place_that_cannot_be_written_to(tmp_path):
    place = tmp_path / "site"
    shutil.copytree(PACKAGE, place / "fmknn", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in {file.parent for file in place.rglob("*.py")}:
        (folder / "__pycache__").write_text("")
    code = """
import json, numpy as np, fmknn
from fmknn.index import rank
from fmknn.model import kernels
from fmknn.solvers import adam_kernel
score = fmknn.FMParams(1.0, [2.0, 3.0], [[1.0], [2.0]]).score([[1.0, 1.0]])
print(json.dumps([fmknn.__file__, score.tolist(), kernels.score_rows.stats.cache_path]))
"""
    file, score, cached_in = run(code, PYTHONPATH=str(place), **nowhere(tmp_path))
    assert Path(file).is_relative_to(place)
    assert score == [8] and cached_in is None
