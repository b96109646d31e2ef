"""The folder of corpora, for the tests of what lies in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

CORPORA = Path(__file__).parent.parent / "corpora"
README = (CORPORA / "README.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    """A script of the folder as a module, which belongs to no package."""
    spec = importlib.util.spec_from_file_location(name, CORPORA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(name: str) -> str:
    """A corpus, which is ASCII and ends with a newline."""
    found = (CORPORA / name).read_bytes().decode("ascii")
    assert found.endswith("\n")
    return found
