"""The layout, the layers and the style that architecture.md states."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS
from tests.laws.table import ROWS

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "jaxreg").rglob("*.py"))
SOURCES = PACKAGE + sorted((ROOT / "experiments").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Left of each other: a module imports from its own layer and from those before it.
LAYERS = [
    {"_core"},
    {"_numerics"},
    {"calculus"},
    {"penalties", "constraints"},
    {"rules"},
    {"preconditioners", "transforms", "solve"},
    {"model_selection", "reports"},
    {"compaction"},
    {"states"},
]
ALLOWED = {"jax", "jaxlib", "optax", "jaxreg"} | set(sys.stdlib_module_names)

# Their docstrings have no example: abstract classes, whose subclasses have them, and
# submodules, whose functions do.
WITHOUT_EXAMPLE = {
    "Penalty",
    "Leafwise",
    "Elementwise",
    "Constraint",
    "model_selection",
    "preconditioners",
    "solve",
    "states",
}
SUBMODULES = {
    name: getattr(jaxreg, name)
    for name in ("model_selection", "preconditioners", "solve")
}
# The classes that only functions make.
MAKERS = {
    "Grouped": "grouped",
    "Spectral": "spectral",
    "ByPath": "by_path",
    "Anchored": "anchored",
    "Envelope": "envelope",
    "Nonnegative": "nonnegative",
    "Scaled": "scaled",
    "Weighted": "weighted",
    "Coupled": "coupled",
}
# The classes that only `+` makes.
SUMS = {"DecomposedSum", "Elastic"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(path: Path) -> str:
    """The module or subpackage of jaxreg that a file belongs to."""
    return path.relative_to(ROOT / "jaxreg").parts[0].removesuffix(".py")


def layer(name: str) -> int:
    (place,) = [place for place, units in enumerate(LAYERS) if name in units]
    return place


files = pytest.mark.parametrize("path", SOURCES, ids=named)
package = pytest.mark.parametrize("path", PACKAGE, ids=named)
inner = pytest.mark.parametrize(
    "path", [path for path in PACKAGE if unit(path) != "__init__"], ids=named
)


@inner
def test_a_module_imports_only_from_its_layer_and_those_before(path: Path) -> None:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "jaxreg":
            continue
        assert layer(parts[1]) <= layer(unit(path)), name


@inner
def test_a_lift_imports_no_concrete_penalty(path: Path) -> None:
    if unit(path) == "calculus":
        assert not any("penalties" in name.split(".") for name in imported(path))


def test_the_contract_imports_layouts_messages_and_ranges() -> None:
    for name in imported(ROOT / "jaxreg" / "_core" / "penalty.py"):
        is_own = name.split(".")[0] == "jaxreg"
        assert not is_own or name.split(".")[2] in ("layout", "messages", "ranges")


@package
def test_the_package_imports_jax_optax_and_the_standard_library(
    path: Path,
) -> None:
    drawing = {"matplotlib"} if path.name == "plots.py" else set()
    assert {name.split(".")[0] for name in imported(path)} <= ALLOWED | drawing


def test_the_package_runs_without_what_draws() -> None:
    command = "import sys, jaxreg; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


# The only statement of the catalogue beside imports.
HIDDEN = """if not TYPE_CHECKING:
    from jaxreg._core.other_libraries import __getattr__ as __getattr__"""
NO_CATALOGUE = {
    "typing.TYPE_CHECKING",
    "jaxreg._core.other_libraries.__getattr__",
}


def test_the_catalogue_has_no_code() -> None:
    allowed = (ast.ImportFrom, ast.Expr, ast.Assign, ast.FunctionDef)
    (guard,) = [n for n in tree_of(PACKAGE[0]).body if not isinstance(n, allowed)]
    assert ast.unparse(guard) == HIDDEN
    assert named(PACKAGE[0]) == "jaxreg/__init__.py"
    (function,) = [n for n in tree_of(PACKAGE[0]).body if isinstance(n, allowed[-1])]
    assert function.name == "__dir__"


def test_dir_shows_the_public_names_alone() -> None:
    assert dir(jaxreg) == sorted(jaxreg.__all__)
    names = [getattr(jaxreg, name) for name in jaxreg.__all__]
    assert sum(not inspect.ismodule(name) for name in names) <= 85


def test_no_submodule_is_shadowed_by_a_name_of_its_package() -> None:
    for path in PACKAGE:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        module = importlib.import_module(name)
        package, _, last = name.rpartition(".")
        if package:
            assert getattr(sys.modules[package], last) is module, name


@files
def test_a_file_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), named(path)


@files
def test_a_file_has_no_todo_and_probes_nothing(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "hasattr"
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            assert not caught & {"ImportError", "ModuleNotFoundError"}


@files
def test_every_suppression_carries_a_reason(path: Path) -> None:
    for line in path.read_text().splitlines():
        found = re.search(r"# (noqa|type: ignore)(\S*)(.*)", line)
        assert not found or re.search(r"\w{3}", found[3]), line


@files
def test_comments_are_at_most_one_in_twenty_lines(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines()]
    blocks = sum(
        line.startswith("#") and not before.startswith("#")
        for before, line in zip(["", *lines], lines, strict=False)
    )
    # The catalogue's headings are its table of contents.
    if path.name != "__init__.py":
        assert blocks <= max(1, len(lines) / 20)


PUBLIC = {name: getattr(jaxreg, name) for name in jaxreg.__all__}
PUBLIC |= {
    f"{submodule}.{name}": getattr(module, name)
    for submodule, module in SUBMODULES.items()
    for name in module.__all__
}


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - WITHOUT_EXAMPLE))
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name])
    assert text and ">>> " in text


def test_names_without_an_example_exist_and_have_a_docstring() -> None:
    for name in WITHOUT_EXAMPLE:
        assert inspect.getdoc(PUBLIC[name])
    for name in jaxreg.states.__all__:
        assert inspect.getdoc(getattr(jaxreg.states, name))


def test_the_catalogue_lists_what_it_imports() -> None:
    names = imported(ROOT / "jaxreg" / "__init__.py") - NO_CATALOGUE
    assert sorted(name.split(".")[-1] for name in names) == sorted(jaxreg.__all__)


def penalty_files() -> list[Path]:
    folders = [ROOT / "jaxreg" / name for name in ("penalties", "constraints")]
    return [p for f in folders for p in sorted(f.glob("*.py")) if p.stem[0] != "_"]


def own_class(path: Path) -> type:
    """The one class of a penalty's file."""
    module = importlib.import_module(f"jaxreg.{path.parent.name}.{path.stem}")
    nodes = [node for node in tree_of(path).body if isinstance(node, ast.ClassDef)]
    # Beside its layout, which is private.
    classes = [node for node in nodes if not node.name.startswith("_")]
    assert len(classes) == 1, "one penalty per file"
    return getattr(module, classes[0].name)


@pytest.mark.parametrize("path", penalty_files(), ids=named)
def test_a_penalty_file_is_in_the_catalogue_and_in_the_table(path: Path) -> None:
    penalty = own_class(path)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", penalty.__name__).lower()
    assert path.stem == snake
    assert getattr(jaxreg, penalty.__name__) is penalty
    assert penalty.__name__ in jaxreg.__all__
    assert any(type(row.penalty) is penalty for row in ROWS)


def test_every_penalty_of_the_catalogue_has_its_file() -> None:
    kinds = [getattr(jaxreg, name) for name in jaxreg.__all__]
    penalties = {
        kind
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, jaxreg.Penalty)
        and not inspect.isabstract(kind)
    }
    assert penalties == {own_class(path) for path in penalty_files()}


def test_every_row_is_made_by_a_public_name() -> None:
    for row in ROWS:
        kind = type(row.penalty).__name__
        is_public = MAKERS.get(kind, kind) in jaxreg.__all__
        assert is_public or kind in SUMS, row.name


def makes_a_transformation(thing: object) -> bool:
    if not inspect.isfunction(thing):
        return False
    return "GradientTransformation" in str(inspect.signature(thing).return_annotation)


def test_every_transformation_has_its_row() -> None:
    public = {name: getattr(jaxreg, name) for name in jaxreg.__all__}
    makers = {name for name, thing in public.items() if makes_a_transformation(thing)}
    assert makers == set(TRANSFORMATIONS)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_row_builds_the_transformation_with_its_state(name: str) -> None:
    row = TRANSFORMATIONS[name]
    tx = row.alone(row.example_penalty())
    assert isinstance(tx, optax.GradientTransformation)
    assert type(tx.init(jnp.ones((3, 2)))) is row.state


def find_tests(path: Path) -> list[ast.FunctionDef]:
    functions = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef)]
    return [function for function in functions if function.name.startswith("test_")]


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, but not of functions inside it."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


def calls_of(name: str, tree: ast.AST) -> list[ast.Call]:
    """The calls of `pytest.<name>`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == f"pytest.{name}"]


# Words that begin a riddle and not a statement.
INDIRECT = {"Of", "What", "Which", "How", "Whether", "Where", "Why"}


def test_a_test_has_a_name_of_at_most_60_characters() -> None:
    names = [test.name for path in TESTS for test in find_tests(path)]
    assert [name for name in names if len(name) > 60] == []


def test_no_test_leaves_early_by_a_return() -> None:
    for path in TESTS:
        for test in find_tests(path):
            returns = [n for n in own_nodes(test) if isinstance(n, ast.Return)]
            assert not returns, f"{named(path)}: {test.name}"


def test_an_expected_error_is_matched_by_its_message() -> None:
    for path in TESTS:
        tree = tree_of(path)
        for call in calls_of("raises", tree) + calls_of("warns", tree):
            keywords = {keyword.arg for keyword in call.keywords}
            assert "match" in keywords, f"{named(path)}:{call.lineno}"


def test_a_law_skips_no_row() -> None:
    for path in TESTS:
        if path.parent.name == "laws":
            assert not calls_of("skip", tree_of(path)), named(path)


def test_a_test_file_is_in_a_room_of_its_own() -> None:
    rooms = {p.name for p in (ROOT / "jaxreg").iterdir() if p.is_dir()}
    rooms |= {"laws", "system", "examples", "experiments", "support"}
    for path in TESTS:
        room = path.relative_to(ROOT / "tests").parts[0]
        assert room in rooms or path.name in ("__init__.py", "conftest.py"), path
        assert room != "support" or not find_tests(path), path


def test_a_docstring_of_a_test_begins_with_its_subject() -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in TESTS:
        for node in ast.walk(tree_of(path)):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            assert (text or "-").split()[0] not in INDIRECT, f"{named(path)}: {text}"
