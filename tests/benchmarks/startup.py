"""Start-up: seconds of whole processes, and of the kernels' first compilation.

    python tests/benchmarks/startup.py [--peer-python PATH] [--repeats 7] [--quick]

A small model (LSTM 2 x 128) is trained in a temporary folder; the cache of its kernels is there too. Then the commands
run one after another, ``--repeats`` rounds, each row the median of its rounds; next to them what Python, Numba and
(with ``--peer-python``) PyTorch need to begin. The first `charlm train` has an empty cache each time; what it takes
longer than one with cached kernels is compilation. One more run, outside the rounds, tells which kernels these were.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import describe
from peer_process import HOW_TO, Peer
from table import Table

ROOT = Path(__file__).parents[2]
TEXT = ROOT / "corpora" / "dinosaurs.txt"
CHARACTERS = 200  # of the sample
SHOWN = 12  # kernels, the slowest
TABLE = Table(("whole process", 46), ("seconds", 8), ("lo-hi", 11), ("at most", 7), ("aim", 5), ("reached", 0))


@dataclass(frozen=True)
class Command:
    """A row of the table."""

    name: str
    arguments: list[str]
    at_most: float = 0.0  # seconds that are wanted, and hoped for; 0 for neither
    aim: float = 0.0
    is_cold: bool = False  # begins with no kernel compiled

    def row(self, seconds: list[float], name: str = "") -> list[str]:
        median = statistics.median(seconds)
        reached = "aim" if median <= self.aim else "at most" if median <= self.at_most else "NO"
        goals = [f"{goal:g}" if goal else "" for goal in (self.at_most, self.aim)]
        lo_hi = f"{min(seconds):.2f}-{max(seconds):.2f}"
        return [name or self.name, f"{median:.3f}", lo_hi, *goals, reached if self.aim else ""]


class Runner:
    """Runs commands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._caches = 0
        self._warm_cache = self.new_cache()

    def new_cache(self) -> Path:
        self._caches += 1
        cache = self.folder / f"cache{self._caches}"
        cache.mkdir(mode=0o700)
        return cache

    def seconds(self, arguments: list[str], *, cache: Path | None = None, least_output: int = 0) -> float:
        """Run a command to its end, with the warm cache if no other is given; seconds from start to end."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CHARLM_CACHE_DIR": str(cache or self._warm_cache)}
        begin = time.perf_counter()
        done = subprocess.run(arguments, cwd=self.folder, env=environment, capture_output=True, check=False)
        spent = time.perf_counter() - begin
        if done.returncode or len(done.stdout) < least_output:
            raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr.decode()}")
        return spent

    def measure(self, command: Command) -> float:
        least = CHARACTERS if "sample" in command.arguments else 0
        cache = self.new_cache() if command.is_cold else None
        return self.seconds(command.arguments, cache=cache, least_output=least)


def commands(peer_python: str | None) -> list[Command]:
    charlm, python = [sys.executable, "-m", "charlm"], [sys.executable, "-c"]
    rows = [
        Command("charlm --help", [*charlm, "--help"], 0.2, 0.1),
        Command("charlm train --help", [*charlm, "train", "--help"]),
        Command(
            f"charlm sample MODEL --max-length {CHARACTERS}",
            [*charlm, "sample", "model.npz", "--max-length", str(CHARACTERS), "--seed", "1"], 1.0, 0.6,
        ),
        Command("charlm train, one epoch of 18 KB", training(charlm)),
        Command("the same, no kernel compiled", training(charlm), is_cold=True),
        Command("python -c pass", [*python, "pass"]),
        Command("python -c 'import numpy'", [*python, "import numpy"]),
        Command("python -c 'import numba'", [*python, "import numba"]),
    ]  # fmt: skip
    if peer_python is not None:
        rows.append(Command("python -c 'import torch'", [peer_python, "-c", "import torch"]))
    return rows


def training(charlm: list[str], output: str = "other.npz", epochs: int = 1) -> list[str]:
    sizes = ["--hidden-size", "128", "--num-layers", "2", "--epochs", str(epochs), "--sequence", "file"]
    return [*charlm, "train", str(TEXT), "-o", output, *sizes]


def tell_compilations(runner: Runner, tell: Callable[[str], None]) -> None:
    """Which kernels an empty cache makes `charlm train` compile."""
    script = str(Path(__file__).with_name("compilations.py"))
    output = runner.folder / "compilations.json"
    runner.seconds(training([sys.executable, "-B", script, str(output)]), cache=runner.new_cache())
    found: list[tuple[str, float]] = [(name, seconds) for name, seconds in json.loads(output.read_text())]
    total = sum(seconds for _, seconds in found)
    tell(f"\n{len(found)} kernels are compiled in {total:.1f} s (each without those that it calls):")
    for name, seconds in sorted(found, key=lambda kernel: -kernel[1])[:SHOWN]:
        tell(f"    {seconds:6.2f} s  {name}")
    if len(found) > SHOWN:
        rest = total - sum(sorted(seconds for _, seconds in found)[-SHOWN:])
        tell(f"    {rest:6.2f} s  {len(found) - SHOWN} others")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (default: 7)")
    parser.add_argument("--quick", action="store_true", help="one round: a first look, not a figure to quote")
    options = parser.parse_args()
    if options.peer_python is None:
        print(f"without PyTorch. {HOW_TO}\n")
        print(describe(None))
    else:
        with Peer(options.peer_python) as peer:
            print(describe(peer))
    with tempfile.TemporaryDirectory() as folder:
        runner, chosen = Runner(Path(folder)), commands(options.peer_python)
        # Long enough to learn that a file does not end soon, or the sample does.
        runner.seconds(training([sys.executable, "-m", "charlm"], "model.npz", epochs=10))
        for command in chosen:  # files and bytecode are in memory from here on
            if not command.is_cold:
                runner.measure(command)
        seconds: dict[str, list[float]] = {command.name: [] for command in chosen}
        for _ in range(1 if options.quick else options.repeats):
            for command in chosen:
                seconds[command.name].append(runner.measure(command))
        print(f"\n{TABLE.head()}")
        for command in chosen:
            print(TABLE.line(command.row(seconds[command.name])))
        warm, cold = (
            next(command for command in chosen if "train, one" in command.name),
            next(command for command in chosen if command.is_cold),
        )
        compiling = [c - w for c, w in zip(seconds[cold.name], seconds[warm.name], strict=True)]
        print(TABLE.line(Command("", [], 20, 10).row(compiling, "compilation: the difference of the two")), flush=True)
        tell_compilations(runner, print)


if __name__ == "__main__":
    main()
