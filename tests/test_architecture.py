"""The house stands as it was drawn: who imports whom, where foreign packages may appear."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fmknn"
FILES = sorted(PACKAGE.rglob("*.py"))

# a room may import those on the lines above it, and files of its own room
LAYERS = [
    {"errors", "metrics"},
    {"_checks", "_files", "_numba", "_random", "_sklearn", "_threads"},
    {"data"},
    {"model"},
    {"solvers", "index"},
    {"estimators", "serving"},
    {"backends"},
    {"_model_file", "baselines", "datasets", "evaluation", "growing", "splits"},
    {"recommender"},
    {"plot", "selection"},
    {"demo", "cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

HOMES = {  # package -> the only files that may import it
    "numba": {"_numba.py"},
    "faiss": {"index/faiss_selectors.py"},
    "narwhals": {"data/frames.py"},
    "duckdb": {"data/external_sort.py"},
    "sklearn": {
        "datasets/libfm.py",
        "estimators/base.py",
        "estimators/regressor.py",
        "estimators/classifier.py",
    },
    "matplotlib": {"plot.py"},
    "boto3": {"backends/sagemaker/clients.py", "backends/sagemaker/s3.py"},
    "botocore": {"backends/sagemaker/clients.py"},
    "optuna": {"selection/hyperparameters.py"},
    "sqlalchemy": {"serving/sinks/sql.py"},
    "sqlite3": {"serving/sinks/sqlite.py"},
    "pyspark": {
        "backends/spark/backend.py",
        "backends/spark/sinks.py",
        "backends/spark/training.py",
    },
    "py4j": {"backends/spark/sinks.py"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Absolute names of everything a file imports, with the line."""
    package = ["fmknn", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "fmknn":
                found += [(f"fmknn.{alias.name}", node.lineno) for alias in node.names]
            elif node.level and node.module is None:
                found += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
            else:
                found.append((module, node.lineno))
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_layers_import_downward_only(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    for name, line in imports_of(path):
        if not name.startswith("fmknn."):
            continue
        other = name.split(".")[1]
        if other == room:
            continue
        assert LEVEL[other] < LEVEL[room], f"{ids(path)}:{line} imports {name}, which is not below"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_foreign_packages_stay_at_home(path):
    for name, line in imports_of(path):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert ids(path) in homes, f"{ids(path)}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_file_grows_too_long(path):
    assert len(path.read_text().splitlines()) <= 450


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_the_command_line_prints(path):
    if room_of(path) in ("cli", "demo"):
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printed = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not printed, f"{ids(path)} prints in lines {printed}"


def test_every_room_is_on_the_plan():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(LEVEL)


def test_every_public_name_exists():
    import fmknn

    for name in fmknn.__all__:
        assert getattr(fmknn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        fmknn.Recomender  # noqa: B018
