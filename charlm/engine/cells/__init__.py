"""Recurrent cells: one file a cell, found by its name. A file dropped in here is a cell that `--cell` offers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.engine.cells._cell import Cell


def names() -> list[str]:
    """Names of all cells, found without importing any (nor Numba)."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def find(name: str) -> Cell:
    """The cell of that name; KeyError if there is none."""
    if name not in names():
        raise KeyError(name)
    cell: Cell = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").CELL
    return cell
