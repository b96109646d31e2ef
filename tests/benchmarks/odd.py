"""Odd sizes next to round ones: what tiles that do not divide a size cost. charlm alone; PyTorch is not needed.

    python tests/benchmarks/odd.py [--rows REGEX] [--repeats 7] [--threads 2] [--quick] [--patience SECONDS]

Two trainings that differ in one size work in turns. Compared is the time per token, scaled by the arithmetic of the
sizes: "per token" is the odd one's time per token over the round one's; "scaled" divides that by the ratio of the
multiplications that each needs per token. Both are the median over the turns. Above 1 the odd size costs more than its
arithmetic; 15 % is the limit. Where the batch is the size, the steps are chosen so that both have the same number of
tokens a step: what is done once a step then weighs the same. Two threads can share a batch of 2 but not one of 1, so
with two threads that row also shows the second thread; ``--threads 1`` shows the size alone.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace

from machine import describe
from ours import operations, work
from table import Table
from turns import Effort, here, take_turns
from work import TRAIN, Row, matching

from charlm.engine.threads import Team

LIMIT = 1.15
LETTERS = Row(TRAIN, "lstm", 2, 128, 50, 50, 65)
WORDS = Row(TRAIN, "lstm", 2, 200, 20, 35, 10_000)
TABLE = Table(
    ("size", 40), ("odd tok/s", 10), ("round tok/s", 11), ("per token", 9), ("scaled", 7), ("lo-hi", 11),
    ("others", 6), ("within 15 %", 0),
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """An odd size, and the round one next to it."""

    name: str
    odd: Row
    even: Row


def hidden(odd: int, even: int, base: Row = LETTERS) -> Pair:
    return Pair(f"hidden {odd} to {even} (N {base.rows})", replace(base, size=odd), replace(base, size=even))


def batch(odd: tuple[int, int], even: tuple[int, int]) -> Pair:
    """Batches as (N, T), with the same N * T."""
    assert odd[0] * odd[1] == even[0] * even[1]
    rows = [replace(LETTERS, rows=rows, steps=steps) for rows, steps in (odd, even)]
    return Pair(f"batch {odd[0]} to {even[0]} (T {odd[1]} to {even[1]})", *rows)


def symbols(odd: int, even: int, base: Row = LETTERS) -> Pair:
    return Pair(f"vocabulary {odd:,} to {even:,}", replace(base, symbols=odd), replace(base, symbols=even))


PAIRS = [
    hidden(100, 96),
    hidden(100, 112),
    hidden(100, 128),
    hidden(129, 128),
    hidden(650, 640),
    batch((1, 100), (2, 50)),
    batch((7, 48), (8, 42)),
    batch((50, 48), (48, 50)),
    symbols(27, 32),
    symbols(65, 64),
    symbols(10_001, 10_000, WORDS),
]


def compare(pair: Pair, team: Team, effort: Effort) -> list[str]:
    """The pair's row of the table."""
    turns = take_turns([here(work(pair.odd, team)), here(work(pair.even, team))], effort)
    per_token = [ratio * pair.even.tokens / pair.odd.tokens for ratio in turns.ratios(0, 1)]
    needed = [operations(row)[0] / row.tokens for row in (pair.odd, pair.even)]
    scaled = [ratio * needed[1] / needed[0] for ratio in per_token]
    return [
        pair.name,
        f"{pair.odd.tokens / turns.median(0):,.0f}",
        f"{pair.even.tokens / turns.median(1):,.0f}",
        f"{statistics.median(per_token):.3f}",
        f"{statistics.median(scaled):.3f}",
        f"{min(scaled):.2f}-{max(scaled):.2f}",
        turns.others_text(),
        "yes" if statistics.median(scaled) <= LIMIT else "NO",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the pairs whose name matches")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    Effort.add_options(parser)
    options = parser.parse_args()
    effort = Effort.of(options)
    chosen = matching(PAIRS, options.rows)
    print(describe(None))
    print(f"{effort}, {options.threads} thread{'s' * (options.threads > 1)}")
    print("scaled    time per token over time per token, by the multiplications that each size needs a token\n")
    print(TABLE.head(), flush=True)
    team = Team(options.threads)
    for pair in chosen:
        print(TABLE.line(compare(pair, team, effort)), flush=True)
    team.close()


if __name__ == "__main__":
    main()
