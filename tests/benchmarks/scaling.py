"""Speed-up of training from one thread to two. charlm alone; PyTorch is not needed.

    python tests/benchmarks/scaling.py [--rows REGEX] [--repeats 7] [--quick] [--patience SECONDS]

One thread and two work in turns, on models of their own with the same weights and tokens; the speed-up is the median
of the ratios within a turn. From 2 x 256 on, 1.7 x is wanted. On a machine whose two cores are two threads of one core,
or that others use, no program reaches it: the last row is charlm's product alone, which shares nothing.
"""

from __future__ import annotations

import argparse
import statistics

from machine import describe
from ours import peak, work
from table import Table
from turns import Effort, here, take_turns
from work import TRAIN, Row, matching

from charlm.engine.threads import Team

WANTED = 1.7
ROWS = [
    Row(TRAIN, "lstm", 2, 128, 50, 50, 65),
    Row(TRAIN, "lstm", 2, 256, 64, 100, 65, at_least=WANTED),
    Row(TRAIN, "lstm", 2, 512, 64, 100, 65, at_least=WANTED),
]
TABLE = Table(
    ("work", 36), ("1 thread tok/s", 14), ("2 threads tok/s", 15), ("speed-up", 8), ("lo-hi", 11), ("wanted", 6),
    ("others", 6), ("reached", 0),
)  # fmt: skip


def compare(row: Row, teams: tuple[Team, Team], effort: Effort) -> list[str]:
    """The row of the table."""
    turns = take_turns([here(work(row, team)) for team in teams], effort)
    ratios = turns.ratios(0, 1)
    speed_up = statistics.median(ratios)
    return [
        row.name,
        f"{row.tokens / turns.median(0):,.0f}",
        f"{row.tokens / turns.median(1):,.0f}",
        f"{speed_up:.2f} x",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
        f"{row.at_least:g} x" if row.at_least else "",
        turns.others_text(),
        ("yes" if speed_up >= row.at_least else "NO") if row.at_least else "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the rows whose name matches")
    Effort.add_options(parser)
    options = parser.parse_args()
    effort = Effort.of(options)
    chosen = matching(ROWS, options.rows)
    print(f"{describe(None)}\n{effort}\n\n{TABLE.head()}", flush=True)
    teams = Team(1), Team(2)
    for row in chosen:
        print(TABLE.line(compare(row, teams, effort)), flush=True)
    one, two = (peak(team, effort.seconds) / 1e9 for team in teams)
    print(TABLE.line(["the product alone, GFLOP/s", f"{one:.0f}", f"{two:.0f}", f"{two / one:.2f} x", "", "", "", ""]))
    for team in teams:
        team.close()


if __name__ == "__main__":
    main()
