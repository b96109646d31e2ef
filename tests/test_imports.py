"""The house's plan, read from the imports: cli -> workflows -> ... -> units, errors, never up, never sideways."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.glob("charlm/**/*.py"))
}

# A part of the house may import from itself and from any floor below, not from its neighbours.
FLOORS = [
    {"charlm.units", "charlm.errors", "charlm.wording"},
    {"charlm.locks"},
    {"charlm.files"},
    {"charlm.engine"},
    {"charlm.models", "charlm.text", "charlm.checkpoint", "charlm.evaluation"},
    {"charlm.training"},
    {"charlm.workflows"},
    {"charlm.cli"},
    {"charlm.__main__"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
ONLY_IN = {
    "numba": "charlm.engine",
    "llvmlite": "charlm.engine",
    "click": "charlm.cli",
    "tqdm": "charlm.cli",
}
NOT_HEAVY = {"click", "charlm", "charlm.errors", "charlm.units", "charlm.wording"}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to: its first two names."""
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The modules that a syntax tree imports, anywhere in it, each by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            # `from charlm import checkpoint` imports a module, `from charlm import __version__` a name in one.
            yield from (name if name in MODULES else base for name in names)


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return set(imports(ast.parse(path.read_text("utf-8")), module, path.name == "__init__.py"))


def faults(module: str, imported: set[str]) -> list[str]:
    """What is wrong with a module's imports."""
    found = []
    own = part_of(module)
    for name in sorted(imported):
        other = part_of(name)
        top = name.split(".")[0]
        if top == "charlm" and other not in ("charlm", own) and FLOOR[other] >= FLOOR.get(own, -1):
            found.append(f"{module} imports {name}, which is not below it")
        if top in ONLY_IN and own != ONLY_IN[top]:
            found.append(f"{module} imports {top}, which only {ONLY_IN[top]} may")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    assert faults(module, imports_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_floor(module: str) -> None:
    assert module == "charlm" or part_of(module) in FLOOR


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("charlm.engine.math", "from charlm.models import language"),
        ("charlm.engine.math", "def f():\n    import charlm.training.loop"),
        ("charlm.models.language", "from charlm import checkpoint"),
        ("charlm.models.language", "from ..text import vocabulary"),
        ("charlm.models.language", "from .. import checkpoint"),
        ("charlm.checkpoint", "from charlm.text.vocabulary import Vocabulary"),
        ("charlm.evaluation.classes", "from charlm.text.labels import Labels"),
        ("charlm.models.language", "from charlm.evaluation import edits"),
        ("charlm.text.corpus", "import charlm.workflows"),
        ("charlm.units", "from charlm.errors import InputError"),
        ("charlm.errors", "from charlm import files"),
        ("charlm.files", "from charlm.engine import threads"),
        ("charlm.files", "from charlm import checkpoint"),
        ("charlm", "from charlm.engine import math"),
        ("charlm.training.loop", "import numba"),
        ("charlm.models.language", "from numba.core import types"),
        ("charlm.workflows.train", "import click"),
        ("charlm.training.loop", "from tqdm import tqdm"),
    ],
)
def test_a_planted_fault_is_found(module: str, source: str) -> None:
    assert faults(module, set(imports(ast.parse(source), module, is_package=module == "charlm")))


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("charlm.cli.")])
def test_a_command_imports_little_before_it_runs(module: str) -> None:
    """At the top of a file in charlm/cli: click, the standard library, and what costs nothing."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    top_level = ast.Module([node for node in tree.body if not is_for_types_only(node)], [])
    for node in ast.walk(top_level):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = []
    for name in imports(top_level, module, is_package=False):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or name in NOT_HEAVY or part_of(name) == "charlm.cli", name


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/reference").glob("*.py")), ids=lambda path: path.stem)
def test_a_reference_stands_on_its_own(path: Path) -> None:
    """A reference that imported what it checks would agree with it in every mistake."""
    for name in imports(ast.parse(path.read_text("utf-8")), f"tests.reference.{path.stem}", is_package=False):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or top == "numpy" or name.startswith("tests.reference"), name


def modules_after(statements: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter once the statements have run."""
    at_exit = "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))"
    code = f"import atexit, json, sys\n{at_exit}\n{statements}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stderr))


def test_files_and_locks_need_little() -> None:
    def foreign(module: str) -> set[str]:
        return {name for name in imports_of(module) if name.split(".")[0] not in sys.stdlib_module_names}

    assert foreign("charlm.files") == {"charlm.errors", "charlm.locks"}
    assert foreign("charlm.locks") == {"charlm.errors"}


def test_tokenize_does_without_the_engine() -> None:
    """Numba takes longer to load than a text to be counted; a model's vocabulary needs none of it."""
    loaded = modules_after("import charlm.workflows.tokenize")
    assert "charlm.workflows.text_side" in loaded
    assert not {name for name in loaded if name.split(".")[0] == "numba" or name.startswith("charlm.engine")}


@pytest.mark.parametrize("argument", ["--help", "-h", "--version"])
def test_help_loads_click_and_the_standard_library_only(argument: str) -> None:
    bare = modules_after("pass")
    loaded = modules_after(f"from charlm.cli.main import main\nmain([{argument!r}])") - bare
    foreign = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert foreign == {"charlm", "click"}
    assert {name for name in loaded if name.startswith("charlm")} == {
        "charlm",
        "charlm.cli",
        "charlm.cli.main",
        "charlm.cli.output",
        "charlm.errors",
    }
