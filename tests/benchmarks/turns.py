"""Taking turns: several sides do their work one after another, again and again, and never at once.

The machine's speed changes from minute to minute; ratios within a turn do not see it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from machine import Others, wait_for_quiet
from peer_process import Peer
from work import measure

QUIET = 0.05  # share of the machine that others may take in a turn

# Least seconds to work -> seconds of one step, and processor seconds of processes other than this one.
Side = Callable[[float], tuple[float, float]]


def here(step: Callable[[], object]) -> Side:
    """A side that works in this process; its first step is made now, so that kernels and caches are warm."""
    measure(step, 0.2)
    return lambda seconds: (measure(step, seconds), 0.0)


def of_peer(peer: Peer) -> Side:
    """The work that the peer has prepared."""

    def side(seconds: float) -> tuple[float, float]:
        answer = peer.ask("measure", seconds=seconds)
        return float(answer["seconds"]), float(answer["processor_seconds"])

    return side


@dataclass(frozen=True)
class Effort:
    """How many turns, of how many seconds at least, and how long to wait for a quiet machine."""

    repeats: int
    seconds: float
    patience: float

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of each side (default: 7)")
        parser.add_argument("--quick", action="store_true", help="3 short turns: a first look, not a figure to quote")
        parser.add_argument(
            "--patience",
            type=float,
            default=0,
            metavar="S",
            help="seconds a row may wait for a quiet machine (default: 0)",
        )

    @classmethod
    def of(cls, options: argparse.Namespace) -> Effort:
        repeats, seconds = (3, 0.3) if options.quick else (options.repeats, 1.0)
        return cls(repeats, seconds, options.patience)

    def __str__(self) -> str:
        return f"turns     {self.repeats} of each side, of at least {self.seconds:g} s"


@dataclass
class Turns:
    """What the turns gave."""

    seconds: list[list[float]]  # of a step: a list for each side, in it one for each turn
    others: list[float] = field(default_factory=list)  # share of the machine that others took, each turn

    def median(self, side: int) -> float:
        return statistics.median(self.seconds[side])

    def ratios(self, over: int, under: int) -> list[float]:
        """Seconds of one side over those of another, each turn."""
        return [a / b for a, b in zip(self.seconds[over], self.seconds[under], strict=True)]

    def others_text(self) -> str:
        share = statistics.mean(self.others)
        return "?" if share != share else f"{share:.0%}"


def take_turns(sides: Sequence[Side], effort: Effort) -> Turns:
    """Let all sides work in turn; who begins changes with each turn. A disturbed turn is repeated in time."""
    deadline = time.perf_counter() + effort.patience
    turns = Turns([[] for _ in sides])
    while len(turns.others) < effort.repeats:
        wait_for_quiet(QUIET, deadline)
        others, spent, elsewhere = Others(), [0.0] * len(sides), 0.0
        order = range(len(sides)) if len(turns.others) % 2 == 0 else reversed(range(len(sides)))
        for i in order:
            spent[i], processor_seconds = sides[i](effort.seconds)
            elsewhere += processor_seconds
        share = others.share(elsewhere)
        if share > QUIET and time.perf_counter() < deadline:
            continue
        turns.others.append(share)
        for i, seconds in enumerate(spent):
            turns.seconds[i].append(seconds)
    return turns
