"""What both sides of a comparison share: the rows of work, the tokens, the clock. Imports numpy alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

SAMPLE_LENGTH = 100  # tokens a step of a sampling row draws, for each stream
CLIP_NORM = 1.0
RATE = 1e-3
BETAS = (0.9, 0.99)
DECAY = 0.01  # of AdamW: PyTorch's default
TRAIN, SAMPLE, SCORE = "train", "sample", "score"


@dataclass(frozen=True)
class Row:
    """One row of the table: a kind of work and its sizes. The embedding is as wide as the hidden layer."""

    kind: str
    cell: str
    layers: int
    size: int  # H, and E
    rows: int  # N: sequences side by side
    steps: int  # T: of a step of the work
    symbols: int  # V
    at_least: float = 0.0  # the ratio to the peer that is wanted, and the one that is hoped for; 0 for neither
    aim: float = 0.0
    adaptive: bool = False  # softmax

    @property
    def name(self) -> str:
        words = f", words V {self.symbols:,}" if self.symbols > 1000 else ""
        words += " adaptive" if self.adaptive else ""
        sizes = f"{self.cell} {self.layers} x {self.size}{words}"
        if self.kind == SAMPLE:
            return f"sample {sizes}, {self.rows} stream{'s' * (self.rows > 1)}"
        return f"{self.kind} {sizes}, N {self.rows}, T {self.steps}"

    @property
    def tokens(self) -> int:
        """Tokens of a step of the work."""
        return self.rows * self.steps


# The ratios are those of the design.
ROWS = [
    Row(TRAIN, "lstm", 1, 128, 50, 50, 65, 2.5, 3.0),
    Row(TRAIN, "lstm", 2, 128, 50, 50, 65, 2.0, 2.5),
    Row(TRAIN, "lstm", 2, 256, 64, 100, 65, 1.8, 2.2),
    Row(TRAIN, "lstm", 2, 512, 64, 100, 65, 1.5, 1.75),
    Row(TRAIN, "gru", 2, 128, 50, 50, 65, 4.0, 5.0),
    Row(TRAIN, "gru", 2, 256, 64, 100, 65),
    Row(TRAIN, "gru", 2, 512, 64, 100, 65, 1.8, 2.2),
    Row(TRAIN, "rnn", 2, 128, 50, 50, 65, 2.5, 3.5),
    Row(TRAIN, "lstm", 2, 200, 20, 35, 10_000, 1.8, 2.2),
    Row(TRAIN, "lstm", 2, 650, 20, 35, 10_000, 1.3, 1.5),
    Row(TRAIN, "lstm", 2, 200, 20, 35, 50_000),
    Row(TRAIN, "lstm", 2, 200, 20, 35, 10_000, adaptive=True),
    Row(TRAIN, "lstm", 2, 200, 20, 35, 50_000, adaptive=True),
    Row(SAMPLE, "lstm", 2, 128, 1, SAMPLE_LENGTH, 65, 12.0, 25.0),
    Row(SAMPLE, "lstm", 2, 512, 1, SAMPLE_LENGTH, 65, 8.0, 20.0),
    Row(SAMPLE, "lstm", 2, 128, 64, SAMPLE_LENGTH, 65, 3.0, 5.0),
    Row(SCORE, "lstm", 2, 128, 64, 64, 65, 2.0, 2.5),
]


class Named(Protocol):
    """What a table's rows are made of."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def matching(items: Sequence[Item], pattern: str) -> list[Item]:
    """Those whose name the regular expression matches; at least one, or the script ends."""
    found = [item for item in items if re.search(pattern, item.name)]
    if not found:
        raise SystemExit(f"--rows {pattern}: none matches; there are: {'; '.join(item.name for item in items)}")
    return found


def tokens(row: Row, chunks: int = 4) -> NDArray[np.int64]:
    """Ids that fall off as words and letters do, p ~ 1 / (rank + 2.7), (chunks, T + 1, N); the same on both sides."""
    weights = 1 / (np.arange(row.symbols) + 2.7)
    edges = np.cumsum(weights / weights.sum())[:-1]
    uniforms = np.random.default_rng(1).random((chunks, row.steps + 1, row.rows))
    return np.searchsorted(edges, uniforms).astype(np.int64)


def measure(step: Callable[[], object], seconds: float, least: int = 2) -> float:
    """Seconds of one step: the mean over at least ``least`` steps and ``seconds``."""
    begin = time.perf_counter()
    count = 0
    while True:
        step()
        count += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds and count >= least:
            return elapsed / count
