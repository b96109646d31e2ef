"""Time to a model: seconds of the whole command against validation nats, for charlm, PyTorch and nanoGPT's recipe.

    python tests/benchmarks/curve.py TEXT --peer-python PATH [-o curve.tsv]
    python tests/benchmarks/curve.py TEXT --charlm '--epochs 5' --charlm '--hidden-size 512 --dropout 0.5' --add

TEXT is tiny-shakespeare (1,115,394 characters), split as nanoGPT does: the first 1,003,854 characters train, the last
111,540 validate, all of them. Three systems, each a process of its own, one after another:

    --charlm FLAGS  `charlm train` of this tree with `--sequence file` and these flags. Kernels are compiled before
    --lstm FLAGS    PyTorch's nn.LSTM, 2 x 256, as charlm's defaults have it; see `curve_peer.py lstm --help`
    --gpt FLAGS     nanoGPT's recipe for a CPU, 4 layers of 128; see `curve_peer.py gpt --help`

Each may be given several times, '' for its defaults; without any, each runs once with its defaults. The clock starts
with the process, so reading, imports and validations are in it. Every result is a line of the TSV (system, seconds,
tokens, valid_nats; a line without nats is the command's end), and the picture lies beside it as SVG. ``--add`` keeps
what the TSV held; ``--draw`` runs nothing and shows it again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from machine import describe  # first: it makes charlm the one of this tree
from peer_process import HOW_TO, Peer
from table import Table

from charlm.evaluation.chart import Axis, svg

ROOT = Path(__file__).parents[2]
TRAIN_CHARACTERS, VALID_CHARACTERS = 1_003_854, 111_540
LEVELS = (2.0, 1.88, 1.7, 1.6, 1.5, 1.4797, 1.4697)  # nats; 1.88 and 1.4697 are nanoGPT's own results
HIGHEST = 2.4  # nats; what lies above is not drawn
POLL_SECONDS = 0.02
TABLE = Table(
    ("seconds to", 52), *((f"{level:g}", 7) for level in LEVELS), ("best", 7), ("at s", 7), ("in all s", 8)
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One validation of a system; the end of its command has no nats."""

    system: str
    seconds: float
    tokens: int
    valid_nats: float | None

    def line(self) -> str:
        nats = "" if self.valid_nats is None else f"{self.valid_nats:.5f}"
        return f"{self.system}\t{self.seconds:.2f}\t{self.tokens}\t{nats}"

    @classmethod
    def of_line(cls, line: str) -> Point:
        system, seconds, tokens, nats = line.split("\t")
        return cls(system, float(seconds), int(tokens), float(nats) if nats else None)


def follow(system: str, command: list[str], log: Path) -> Iterator[Point]:
    """Run a command and stamp each validation that it writes to its log with the seconds since its start."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begin, tokens, unread = time.perf_counter(), 0, ""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd=log.parent)
    is_over = False
    try:
        with open(log, "a+", encoding="utf-8") as lines:
            lines.seek(0)
            while not is_over:
                is_over = process.poll() is not None  # asked before reading, so that the last line is not lost
                seconds = time.perf_counter() - begin
                *whole, unread = (unread + lines.read()).split("\n")
                for entry in map(json.loads, whole):
                    tokens = entry["tokens"]
                    if entry["valid_nats"] is not None:
                        yield Point(system, seconds, tokens, entry["valid_nats"])
                if not is_over:
                    time.sleep(POLL_SECONDS)
    finally:
        if not is_over:
            process.terminate()
        process.wait()
    if process.returncode:
        raise SystemExit(f"{system}: ended with exit code {process.returncode}: {shlex.join(command)}")
    yield Point(system, seconds, tokens, None)


def split(text: str, folder: Path, quick: bool) -> tuple[str, str]:
    """The two parts of tiny-shakespeare as files; of a quick run a tenth of each."""
    characters = Path(text).read_bytes().decode()
    if len(characters) != TRAIN_CHARACTERS + VALID_CHARACTERS:
        raise SystemExit(f"{text}: has {len(characters):,} characters, tiny-shakespeare has 1,115,394")
    share = 10 if quick else 1
    train, valid = folder / "train.txt", folder / "valid.txt"
    train.write_bytes(characters[: TRAIN_CHARACTERS // share].encode())
    valid.write_bytes(characters[TRAIN_CHARACTERS:][: VALID_CHARACTERS // share].encode())
    return str(train), str(valid)


def charlm_command(files: tuple[str, str], flags: str, folder: Path, log: Path) -> list[str]:
    train, valid = files
    command = [sys.executable, "-m", "charlm", "train", train, "--valid", valid, "--sequence", "file", "--quiet"]
    return [*command, "-o", str(folder / f"{log.stem}.npz"), "--log", str(log), *shlex.split(flags)]


def runs(options: argparse.Namespace, files: tuple[str, str], folder: Path) -> Iterator[Point]:
    """All that was asked for, one after another."""
    if not (options.charlm or options.lstm or options.gpt):
        options.charlm, options.lstm, options.gpt = [""], [""], [""]
    number = 0
    for flags in options.charlm:
        number += 1
        warm = charlm_command(files, f"{flags} --time 0.1", folder, folder / f"warm{number}.jsonl")
        list(follow("compiling", warm, folder / f"warm{number}.jsonl"))
        log = folder / f"{number}.jsonl"
        yield from follow(f"charlm {flags or 'defaults'}", charlm_command(files, flags, folder, log), log)
    script = str(Path(__file__).with_name("curve_peer.py"))
    for kind, name, given in (("lstm", "PyTorch LSTM", options.lstm), ("gpt", "nanoGPT", options.gpt)):
        for flags in given:
            number += 1
            log = folder / f"{number}.jsonl"
            command = [options.peer_python, "-B", script, kind, *files, "--log", str(log), *shlex.split(flags)]
            yield from follow(f"{name} {flags or 'defaults'}", command, log)


def write(output: Path, points: list[Point]) -> None:
    lines = ["system\tseconds\ttokens\tvalid_nats", *(point.line() for point in points)]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(system: str, points: list[Point]) -> list[str]:
    """A system's row of the table: when it first reached each level."""
    found = [(point.valid_nats, point.seconds) for point in points if point.valid_nats is not None]
    times = (next((seconds for nats, seconds in found if nats <= level), None) for level in LEVELS)
    best, at = min(found, default=(float("nan"), float("nan")))
    end = next((f"{point.seconds:.1f}" for point in points if point.valid_nats is None), "?")
    return [system, *("-" if s is None else f"{s:.1f}" for s in times), f"{best:.4f}", f"{at:.1f}", end]


def draw(systems: dict[str, list[Point]]) -> str:
    """The picture: nats against seconds, the seconds on a logarithmic scale."""
    curves = {
        system: [(p.seconds, p.valid_nats) for p in points if p.valid_nats is not None and p.valid_nats <= HIGHEST]
        for system, points in systems.items()
    }
    seconds, nats = zip(*(point for curve in curves.values() for point in curve), (1.0, HIGHEST), strict=True)
    seconds = seconds[:-1] or (1.0, 10.0)
    across = Axis("seconds since the start of the command", 0.9 * min(seconds), 1.1 * max(seconds), logarithmic=True)
    up = Axis("validation nats per character", math.floor(10 * min(nats) - 0.1) / 10, HIGHEST, label="{:.1f}".format)
    return svg(curves, across, up)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", help="tiny-shakespeare")
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    for kind in ("charlm", "lstm", "gpt"):
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="FLAGS", help="'' for its defaults")
    parser.add_argument("-o", "--output", default="curve.tsv", metavar="FILE.tsv", help="default: curve.tsv")
    parser.add_argument("--add", action="store_true", help="keep what the file holds, but for systems that run again")
    parser.add_argument("--draw", action="store_true", help="run nothing: show what the file holds")
    parser.add_argument("--quick", action="store_true", help="a tenth of the text: no figure to quote")
    options = parser.parse_args()
    output = Path(options.output)
    points: list[Point] = []
    if options.add or options.draw:
        points = [Point.of_line(line) for line in output.read_text(encoding="utf-8").splitlines()[1:]]
    if not options.draw:
        if options.peer_python is None and (options.lstm or options.gpt or not options.charlm):
            parser.error(f"no --peer-python\n{HOW_TO}")
        with tempfile.TemporaryDirectory() as folder:
            tell_machine(options.peer_python)
            ran: set[str] = set()
            for point in runs(options, split(options.text, Path(folder), options.quick), Path(folder)):
                print(point.line(), file=sys.stderr, flush=True)
                if point.system not in ran:
                    ran.add(point.system)
                    points = [earlier for earlier in points if earlier.system != point.system]
                points.append(point)
                write(output, points)  # at once: a later system may fail
    systems = {point.system: [p for p in points if p.system == point.system] for point in points}
    print(TABLE.head())
    for system, its_points in systems.items():
        print(TABLE.line(summary(system, its_points)))
    output.with_suffix(".svg").write_text(draw(systems), encoding="utf-8")
    print(f"\n{output} and {output.with_suffix('.svg')} are written")


def tell_machine(peer_python: str | None) -> None:
    if peer_python is None:
        print(describe(None))
    else:
        with Peer(peer_python) as peer:
            print(describe(peer))


if __name__ == "__main__":
    main()
