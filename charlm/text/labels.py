"""The labels of classes, or the tags of tokens: which has which id, the same for the same corpus everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from charlm.errors import InputError
from charlm.text.unknown import quoted

LONGEST_LABEL = 1000  # characters
SEPARATORS = "\t\n\r"  # what no label or tag of a line can hold
SHOWN, SOME = 20, 8  # labels that a message lists: all those that there are, or some as examples


def some_of(names: Sequence[str]) -> str:
    """The first labels of many for a message."""
    more = len(names) - SOME
    return ", ".join(names[:SOME]) + (f" and {more:,} more" if more > 0 else "")


@dataclass(frozen=True)
class Labels:
    """Labels and their ids, 0 to L - 1.

    Args:
        names: each id's label.

    Raises:
        ValueError: there is none, or one is empty or there twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or "" in self._index or len(self._index) != self.size:
            raise ValueError("there are no labels, or one is empty or there twice")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> Labels:
        """The labels by falling count, ties by code point; those of no count are left out."""
        seen = [name for name, count in counts.items() if count > 0]
        return cls(tuple(sorted(seen, key=lambda name: (-counts[name], name))))

    @classmethod
    def from_names(cls, names: object) -> Labels:
        """Labels from a file's list.

        Raises:
            ValueError: not a list of distinct strings that are not empty and could stand in a line; half a line.
        """
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("the labels are not a list of strings")
        if any(separator in name for name in names for separator in SEPARATORS):
            raise ValueError("a label holds a tab or a line break")
        if any(len(name) > LONGEST_LABEL for name in names):
            raise ValueError(f"a label has more than {LONGEST_LABEL:,} characters")
        "".join(names).encode()  # half a surrogate pair could not be printed, and is a ValueError
        return cls(tuple(names))

    @property
    def size(self) -> int:
        """L, the number of labels."""
        return len(self.names)

    def find(self, name: str) -> int | None:
        """A label's id; None for one that is not among these."""
        return self._index.get(name)

    def require(self, name: str, place: str, what: str = "label") -> int:
        """A label's id.

        Args:
            name: the label.
            place: where it stands, such as ``names.tsv: line 7``.
            what: what a message calls it: a label, a tag.

        Raises:
            InputError: it is not among these; the message lists them, or those that are much like it.
        """
        number = self.find(name)
        if number is None:
            raise InputError(f"{place}: the {what} {quoted(name)} is unknown to the model; {self._others(name)}")
        return number

    def missing(self, ids: Iterable[int]) -> list[str]:
        """The labels that do not occur among ``ids``, such as those that a validation part lacks."""
        present = {int(number) for number in ids}
        return [name for number, name in enumerate(self.names) if number not in present]

    def _others(self, name: str) -> str:
        """What a message says of the labels that there are."""
        lower = {label.lower(): label for label in reversed(self.names)}
        alike = difflib.get_close_matches(name.lower(), lower, n=3)
        if alike:
            return f"did it mean {' or '.join(lower[label] for label in alike)}?"
        return self.listing

    @property
    def listing(self) -> str:
        """The labels for a message, if there are many the first ones: ``it knows Irish, Greek and 3 more``."""
        shown = ", ".join(self.names[:SHOWN])
        return f"it knows {shown}" + (f" and {self.size - SHOWN} more" if self.size > SHOWN else "")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}
