"""A model's configuration in a checkpoint's header: every field there, of its type, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from charlm import checkpoint
from charlm.engine import cells
from charlm.errors import CheckpointError

LARGEST_SIZE = 1 << 20  # of a layer; beyond it a header is damaged or hostile
MOST_LAYERS = 64  # each has arrays of its own: the names of a million would fill the memory before any is missed
MAY_BE_ZERO = ("labels", "char_features", "source_embedding_size")

C = TypeVar("C")


def read_config(
    kind: type[C],
    header: dict[str, Any],
    path: str | Path,
    sizes: dict[str, int],
    before: Mapping[str, Any] = MappingProxyType({}),
) -> C:
    """The configuration of a checkpoint's model.

    Args:
        kind: its dataclass, of integers, strings and booleans.
        sizes: those that the header's vocabularies and labels have.
        before: fields that older files lack, and what they were.

    Raises:
        CheckpointError: fields are missing, malformed, out of bounds, or not those of the vocabularies.
    """
    values: dict[str, Any] = dict(before) | checkpoint.require(header, "model", dict, path)
    damaged = f"{path}: its model configuration is not valid"
    names = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    if set(values) != set(names):
        raise CheckpointError(f"{damaged} (fields {', '.join(sorted(set(values) ^ set(names)))}); use another copy")
    kinds = {"int": int, "str": str, "bool": bool}
    for name, type_name in names.items():
        value = values[name]
        if type(value) is not kinds[type_name] or (type(value) is int and value not in _bounds(name)):
            raise CheckpointError(f"{damaged} ({name} is {value!r:.40}); use another copy")
    if values["cell"] not in cells.names():
        raise CheckpointError(f"{damaged} (cell {values['cell']!r:.40} is not one of {', '.join(cells.names())})")
    if values["activation"] not in cells.find(values["cell"]).activations:
        raise CheckpointError(f"{damaged} (activation {values['activation']!r:.40}); use another copy")
    for name, size in sizes.items():
        if values[name] != size:
            noun = "vocabulary" if name.endswith("vocabulary_size") else name.replace("_", " ")
            raise CheckpointError(f"{damaged} ({noun} of {size}, not {values[name]})")
    try:
        return kind(**values)
    except ValueError as error:  # what only the model itself knows
        raise CheckpointError(f"{damaged} ({error}); use another copy") from None


def _bounds(name: str) -> range:
    """What a size may be."""
    return range(0 if name in MAY_BE_ZERO else 1, (MOST_LAYERS if name == "num_layers" else LARGEST_SIZE) + 1)
