"""The floors of the house: a module imports only lower floors, and files of its own floor listed above it."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "deel_dualview"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300
# Floor of every file or folder of the package, in the order in which they may import each other.
FLOORS = {
    "typing": 0,
    "_checks": 0,
    "_files": 0,
    "_summaries": 0,
    "quiet": 0,
    "datasets": 1,
    "examples": 1,
    "hashing": 1,
    "elements": 1,
    "lazy": 1,
    "witness": 1,
    "data": 1,
    "user_code": 1,
    "model_files": 1,
    "sources": 1,
    "stores": 1,
    "gathering": 1,
    "search": 1,
    "linalg": 1,
    "svm": 1,
    "labels": 1,
    "inputs": 1,
    "lrp": 1,
    "links": 2,
    "heads": 2,
    "recording": 2,
    "tracing": 2,
    "determinism": 2,
    "splits": 2,
    "architecture": 2,
    "identity": 2,
    "parts": 2,
    "models": 2,
    "train_sets": 2,
    "gradients": 3,
    "softmax_regression": 3,
    "curvature": 3,
    "ekfac": 3,
    "ihvp": 3,
    "_runs": 3,
    "callbacks": 3,
    "calculators": 4,
    "metrics": 5,
    "methods": 5,
    "relevance": 5,
    "wording": 6,
    "fonts": 6,
    "pair_panels": 6,
    "pair_plot": 6,
    "token_plot": 6,
    "column_plot": 6,
    "plots": 6,
    "comparison_plots": 6,
    "report": 6,
    "auditing": 6,
    "comparing": 6,
    "demo": 6,
    "evaluation": 6,
    "__init__": 7,
    "cli": 7,
    "__main__": 7,
}
ROOMS = list(FLOORS)


def _identify(path):
    return str(path.relative_to(PACKAGE))


def _room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path):
    """Yield (line, room) for every import from the package, but not for a type checker alone."""
    tree = ast.parse(path.read_text())
    package = ["deel_dualview", *path.relative_to(PACKAGE).parts[:-1]]
    for node in _outside_type_checking(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "deel_dualview":
                is_room = len(parts) > 1 and (PACKAGE / parts[1]).with_suffix(".py").exists()
                is_room = is_room or len(parts) > 1 and (PACKAGE / parts[1]).is_dir()
                yield node.lineno, parts[1] if is_room else "__init__"


def _outside_type_checking(tree):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _outside_type_checking(node)


@pytest.mark.parametrize("path", FILES, ids=_identify)
def test_a_file_has_a_floor(path):
    assert _room(path) in FLOORS


@pytest.mark.parametrize("path", FILES, ids=_identify)
def test_a_file_imports_only_rooms_below_it(path):
    own = _room(path)
    wrong = [
        f"line {line}: {own} (floor {FLOORS[own]}) imports {room} (floor {FLOORS[room]})"
        for line, room in _imported_rooms(path)
        if room != own and ROOMS.index(room) > ROOMS.index(own)
    ]
    assert not wrong


def test_floors_are_listed_from_the_ground_up():
    assert list(FLOORS.values()) == sorted(FLOORS.values())


@pytest.mark.parametrize("path", FILES, ids=_identify)
def test_a_file_is_at_most_300_lines_long(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=_identify)
def test_a_file_opens_with_a_docstring_if_it_holds_anything(path):
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize("path", FILES, ids=_identify)
def test_a_file_neither_prints_nor_asserts(path):
    tree = ast.parse(path.read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def _modules_after(statement):
    code = f"{statement}\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.splitlines()[-1].split()}


def test_importing_the_package_and_its_names_leaves_out_what_is_not_always_needed():
    """Beyond what Keras imports by itself where it is installed (matplotlib, scikit-learn)."""
    names = "from deel_dualview import DualView, InfluenceModel, ORDER, DualSVMSolver, MemoryStore"
    added = _modules_after(f"import tensorflow, keras\n{names}") - _modules_after("import tensorflow, keras")
    assert "deel_dualview" in added
    assert not {"tensorflow_datasets", "matplotlib", "jinja2", "sklearn"} & added


def test_the_command_line_answers_without_tensorflow():
    assert not {"tensorflow", "keras", "matplotlib", "jinja2"} & _modules_after("import deel_dualview.cli")


def test_every_public_name_can_be_imported():
    import deel_dualview

    assert [name for name in deel_dualview.__all__ if not hasattr(deel_dualview, name)] == []
