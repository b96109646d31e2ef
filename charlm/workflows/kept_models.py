"""`--keep N`: which of a training's models lie beside the best one, and which may be removed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from charlm.errors import UsageError
from charlm.workflows.train_request import beside


def step_path(output: str, step: int) -> str:
    """Where the model of a step lies: MODEL.npz -> MODEL.step-000000200.npz, which sorts by step."""
    return beside(output, f"step-{step:09}")


def found_steps(output: str) -> list[int]:
    """The steps whose models lie beside a model, whoever has written them."""
    try:
        names = os.listdir(os.path.dirname(output) or os.curdir)
    except OSError:
        return []
    matches = (_pattern(output).fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def refuse_step_paths(output: str, given: Mapping[str, str]) -> None:
    """UsageError if a file that is read or written otherwise has a name that ``--keep`` may write.

    Args:
        output: the model.
        given: path to what it is given for.
    """
    folder = os.path.realpath(os.path.dirname(output))
    for path, purpose in given.items():
        parent, name = os.path.split(os.path.realpath(path))
        if parent == folder and _pattern(output).fullmatch(name):
            raise UsageError(f"{path}: is {purpose}, and --keep might write over it; choose another name")


def _pattern(output: str) -> re.Pattern[str]:
    before, after = beside(os.path.basename(output), "\0").split("\0")
    return re.compile(f"{re.escape(before)}step-(\\d{{9,}}){re.escape(after)}")


@dataclass(frozen=True)
class Kept:
    """The models that this training has kept, as its state records them.

    Attributes:
        count: how many to keep, 0 for none.
        steps: those that are kept, the oldest first.
        dropped: those whose files are to be removed.
    """

    count: int = 0
    steps: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    def with_step(self, step: int) -> Kept:
        """After another validation; a step that training has gone back to is there once, as the last."""
        if not self.count:
            return self.trimmed()
        others = tuple(one for one in self.steps if one != step)
        dropped = tuple(one for one in self.dropped if one != step)
        return replace(self, steps=(*others, step), dropped=dropped).trimmed()

    def trimmed(self) -> Kept:
        """With no more than ``count``; the others are dropped."""
        surplus = max(0, len(self.steps) - self.count)
        return replace(self, steps=self.steps[surplus:], dropped=(*self.dropped, *self.steps[:surplus]))

    def to_json(self) -> dict[str, Any]:
        """As a state's header holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Kept:
        """The reverse of `to_json`.

        Raises:
            ValueError: the values are not such a record.
        """
        if set(values) != {field.name for field in fields(cls)} or type(values["count"]) is not int:
            raise ValueError("its record of kept models is malformed")
        lists = {name: values[name] for name in ("steps", "dropped")}
        for steps in lists.values():
            if not isinstance(steps, list) or not all(type(step) is int and 0 <= step < 2**63 for step in steps):
                raise ValueError("its record of kept models is malformed")
        return cls(max(0, values["count"]), **{name: tuple(steps) for name, steps in lists.items()})
