"""Speed of training, sampling and scoring, next to PyTorch doing the same work.

    python tests/benchmarks/speed.py --peer-python PATH [--rows REGEX] [--repeats 7] [--quick] [--patience SECONDS]

charlm works in this process, the peer in its own, in turns and never at once; each row is the median of ``--repeats``
turns of each, and the ratio the median of the ratios within a turn, so that a slow minute slows both. The share is
of the float32 peak that charlm's own product reaches here at its best size, on all threads, and counts the
multiplications that each side really does: charlm looks the first layer's input projection up in a table.

Other processes distort ratios, not only seconds: threads that meet at every product, as the peer's do, lose more to
them than threads that meet a few times a step. The column "others" says how much of the machine they took; a figure
to quote has it below 5 %. ``--patience`` waits for quiet, and repeats disturbed turns. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import asdict, dataclass

from machine import describe
from ours import operations, peak, work
from peer_process import HOW_TO, Peer
from table import Table
from turns import Effort, Turns, here, of_peer, take_turns
from work import ROWS, Row, matching

from charlm.engine.threads import Team

THREADS = 2
OURS, THEIRS = 0, 1
TABLE = Table(
    ("work", 46), ("charlm tok/s", 12), ("peer tok/s", 10), ("ratio", 7), ("lo-hi", 11), ("best/best", 9),
    ("at least", 8), ("aim", 6), ("reached", 8), ("of peak", 7), ("peer's", 6), ("others", 6), ("the peer's way", 0),
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What the turns of one row gave."""

    row: Row
    turns: Turns
    note: str  # the peer's way, where it had a choice

    def cells(self, top: float) -> list[str]:
        """The row of the table; ``top`` is the peak."""
        row, turns = self.row, self.turns
        our_operations, their_operations = operations(row)
        seconds = turns.median(OURS)
        ours, share = f"{row.tokens / seconds:,.0f}", f"{our_operations / seconds / top:.0%}"
        goals = [f"{goal:g} x" if goal else "" for goal in (row.at_least, row.aim)]
        if len(turns.seconds) == 1:
            return [row.name, ours, "", "", "", "", *goals, "", share, "", turns.others_text(), ""]
        seconds = turns.median(THEIRS)
        ratios = turns.ratios(THEIRS, OURS)
        ratio = statistics.median(ratios)
        return [
            row.name,
            ours,
            f"{row.tokens / seconds:,.0f}",
            f"{ratio:.2f} x",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{min(turns.seconds[THEIRS]) / min(turns.seconds[OURS]):.2f} x",
            *goals,
            reached(row, ratio),
            share,
            f"{their_operations / seconds / top:.0%}",
            turns.others_text(),
            self.note,
        ]


def reached(row: Row, ratio: float) -> str:
    """Which of the row's two goals a ratio reaches."""
    if not row.aim:
        return ""
    return "aim" if ratio >= row.aim else "at least" if ratio >= row.at_least else "no"


def read(row: Row, team: Team, peer: Peer | None, effort: Effort) -> Reading:
    """Measure one row."""
    sides, note = [here(work(row, team))], ""
    if peer:
        note = str(peer.ask("prepare", row=asdict(row))["note"])
        sides.append(of_peer(peer))
    return Reading(row, take_turns(sides, effort), note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the rows whose name matches")
    Effort.add_options(parser)
    options = parser.parse_args()
    effort = Effort.of(options)
    chosen = matching(ROWS, options.rows)
    team = Team(THREADS)
    peer = Peer(options.peer_python) if options.peer_python else None
    try:
        print(describe(peer))
        if peer is None:
            print(f"charlm alone. {HOW_TO}")
        print(effort, flush=True)
        top, readings = peak(team, effort.seconds), []
        for row in chosen:
            readings.append(read(row, team, peer, effort))
            top = max(top, peak(team, effort.seconds))  # of a machine that others use, the best moment
            print(TABLE.line(readings[-1].cells(top)), file=sys.stderr, flush=True)
    finally:
        if peer:
            peer.close()
        team.close()
    print(
        f"peak      {top / 1e9:.0f} GFLOP/s, float32, {THREADS} threads: the best of {len(chosen) + 1} measurements\n"
    )
    print(TABLE.head())
    for reading in readings:
        print(TABLE.line(reading.cells(top)))


if __name__ == "__main__":
    main()
