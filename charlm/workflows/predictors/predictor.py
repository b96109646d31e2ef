"""What the predictors of all tasks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from charlm.errors import InputError
from charlm.text.buckets import Rows
from charlm.text.examples import TAB
from charlm.text.pairs import Side
from charlm.text.readers import display_name
from charlm.text.vocabulary import UNK_ID
from charlm.workflows.scoring_batches import line_windows
from charlm.workflows.text_side import text_side
from charlm.workflows.trained import Trained

WINDOW = 512  # examples at a time, of those that are evaluated and of sentences

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """How good predictions are: ``text`` to read, ``figures`` for a program."""

    text: str
    figures: dict[str, Any]


def nothing_to_evaluate(path: str) -> InputError:
    """A text without an answer was given to be evaluated."""
    return InputError(f"{display_name(path)}: holds nothing to evaluate")


def windows(examples: Iterable[T], size: int = WINDOW) -> Iterator[list[T]]:
    """Some examples at a time."""
    rest = iter(examples)
    while window := list(islice(rest, size)):
        yield window


class Predictor:
    """What the three kinds have in common.

    Attributes:
        warn: called with a message; nothing is told by default.
        tokens, unknowns: of the texts read, in all.
    """

    def __init__(self, trained: Trained) -> None:
        self.model, self.header, self.path = trained.model, trained.header, trained.path
        self.warn: Callable[[str], object] = lambda message: None
        self.tokens = self.unknowns = 0

    def count(self, rows: Rows, texts: int) -> None:
        """Take texts into account, each closed by EOS."""
        self.tokens += int(rows.ids.size) - texts
        self.unknowns += int(np.count_nonzero(rows.ids == UNK_ID))

    def texts(self, path: str, side: Side) -> Iterator[list[str]]:
        """The lines of a text, a window at a time.

        Raises:
            InputError: the text is at fault; or a line has a tab, and no text of the model's had one: then it has its
                answer with it. The lines before have been given.
        """
        takes_tabs = side.tokenizer.level == "char" and TAB in side.vocabulary.symbols
        before = 0
        for texts in line_windows(path, side.tokenizer.encoding):
            good = len(texts)
            if not takes_tabs:
                good = next((number for number, text in enumerate(texts) if TAB in text), good)
            if good:
                yield texts[:good]
            if good < len(texts):
                raise InputError(
                    f"{display_name(path)}: line {before + good + 1} has a tab, which none of the model's texts had; "
                    "give the texts alone, or --evaluate to compare with the answers"
                )
            before += good

    def side(self, key: str = "") -> Side:
        """How a side's texts become ids; ``key`` is what its names in the header begin with."""
        vocabulary, tokenizer = text_side(self.header, self.path, key)
        return Side(tokenizer, vocabulary)
