"""The rooms of the house: what may import what, how long a file may be, and what no file does."""

import ast
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / "deel_dualview"
MAX_LINES = 400
# A room imports only rooms above it in this list.
GROUND = ["typing", "_checks", "_files", "_summaries", "_user_code", "quiet"]
ROOMS = [
    *GROUND,
    "data",
    "linalg",
    "svm",
    "models",
    "lrp",
    "stores",
    "search",
    "gradients",
    "curvature",
    "ihvp",
    "calculators",
    "relevance",
    "labels",
    "verification",
    "metrics",
    "plots",
    "report",
    "auditing",
    "evaluation",
    "__init__",
    "cli",
    "__main__",
]


def _module(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def _outside_type_checking(tree):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _outside_type_checking(node)


def _imports(module):
    """Yield every module of the package that another one imports, wherever it does, but for a type checker alone."""
    for node in _outside_type_checking(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, inner = name.partition(".")
            if top == "deel_dualview":
                yield next((part for part in (inner, inner.rpartition(".")[0]) if part in FILES), "__init__")


def _room(module):
    return module.partition(".")[0]


def test_every_file_is_in_a_room_and_none_is_loose_above_the_ground():
    loose = {module for module, path in FILES.items() if path.parent == PACKAGE}
    assert loose == {*GROUND, "__init__", "__main__"}
    assert {_room(module) for module in FILES} == set(ROOMS)


def test_the_tests_lie_in_folders_named_as_the_rooms():
    assert not [
        path for path in TESTS.rglob("test_*.py") if path.parent != TESTS and path.parent.name not in ROOMS
    ]


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by it: the folders of the tests are no packages."""
    names = [path.name for path in TESTS.rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_a_room_imports_only_rooms_above_it_in_the_list():
    assert not [
        f"{module} imports {imported}"
        for module in FILES
        for imported in _imports(module)
        if ROOMS.index(_room(imported)) > ROOMS.index(_room(module))
    ]


def test_files_do_not_import_each_other_in_a_circle():
    remaining = {module: {*_imports(module)} - {module, "__init__"} for module in FILES}
    while free := {module for module, imported in remaining.items() if not imported & remaining.keys()}:
        remaining = {module: imported for module, imported in remaining.items() if module not in free}
    assert not remaining


def test_a_file_is_no_longer_than_the_ceiling():
    lengths = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert not {module: length for module, length in lengths.items() if length > MAX_LINES}


def test_a_file_opens_with_a_docstring_if_it_holds_anything():
    assert not [module for module, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


def test_no_file_prints_or_asserts():
    assert not [
        f"{module}, line {node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) or isinstance(node, ast.Name) and node.id == "print"
    ]


def _modules_after(*statements):
    """Return the names of the modules that a process has after each statement."""
    code = "".join(f"{statement}\nimport sys; print(*sys.modules)\n" for statement in statements)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in result.stdout.splitlines()]


def test_importing_the_package_and_its_names_leaves_out_what_is_not_always_needed():
    """Beyond what Keras imports by itself where it is installed (matplotlib, scikit-learn)."""
    package, keras, names, audit = _modules_after(
        "import deel_dualview",
        "import tensorflow, keras",
        "from deel_dualview import DualView, InfluenceModel, ORDER, DualSVMSolver, MemoryStore",
        "deel_dualview.audit",
    )
    assert "deel_dualview.calculators.dualview" in names
    assert not {"tensorflow", "keras", "matplotlib"} & package
    assert not {"tensorflow_datasets", "matplotlib", "jinja2", "sklearn"} & (names - keras)
    assert not {"tensorflow_datasets", "jinja2", "deel_dualview.plots.audit"} & audit


def test_the_command_line_answers_without_tensorflow():
    assert not {"tensorflow", "keras", "matplotlib", "jinja2"} & _modules_after("import deel_dualview.cli")[0]


def test_every_public_name_can_be_imported():
    import deel_dualview

    assert [name for name in deel_dualview.__all__ if not hasattr(deel_dualview, name)] == []


def test_a_calculator_is_at_most_two_classes_below_the_base_and_has_no_subclass():
    import deel_dualview

    base = deel_dualview.BaseInfluenceCalculator
    public = [getattr(deel_dualview, name) for name in deel_dualview.__all__]
    calculators = [
        one for one in public if isinstance(one, type) and issubclass(one, base) and one is not base
    ]
    assert [one for one in calculators if sum(issubclass(parent, base) for parent in one.__mro__) > 4] == []
    below = [child for one in calculators for child in one.__subclasses__()]
    assert [child for child in below if child.__module__.startswith("deel_dualview.")] == []
