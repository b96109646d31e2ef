"""How much memory training and scoring take, and whether it grows with the text or with the steps.

    python tests/benchmarks/memory.py [--only PART ...] [--size BYTES] [--lines N] [--steps N] [--folder DIR]

Four parts, each command in a process of its own, whose peak resident size is read when it ends:

    rows     a few steps of each training row of speed.py, as `charlm train` makes them, without the text
    steps    one training of many steps: what the process holds on the way
    corpus   `charlm tokenize` and `charlm train` on a text of --size bytes, a gigabyte unless said otherwise
    score    `charlm score` of --lines lines, a million unless said otherwise, and of a tenth of them

The text is made in --folder (default: the system's folder for temporary files), which must have room for four times its
size; all of it is removed at the end. Pages of shared libraries count, and of a text that is mapped those in use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import describe
from peak_process import memory
from table import Table
from work import RATE, ROWS, TRAIN, Row, matching, tokens

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = ROOT / "corpora" / "dinosaurs.txt"
PARTS = ("rows", "steps", "corpus", "score")
AT_MOST, AIM = 1000, 500  # MB, training on a gigabyte
FEW_STEPS = 6  # of a training row
TRAINING_ROWS = [row for row in ROWS if row.kind == TRAIN]
TEXT_WORDS, TEXT_LINES, LINE_WORDS, RARE_SHARE = 30_000, 30_000, 12, 0.05


@dataclass(frozen=True)
class Reading:
    """What a command took."""

    seconds: float
    peak: float  # MB


class Runner:
    """Runs charlm in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._report = folder / "report.json"

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Begin a command; its messages go to the file ``messages``."""
        command = [sys.executable, str(HERE / "peak_process.py"), str(self._report), *arguments]
        self._report.unlink(missing_ok=True)
        with open(self.folder / "messages", "wb") as messages:
            return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=messages)

    def finish(self, process: subprocess.Popen[bytes]) -> float:
        """Wait for its end; its peak, MB."""
        if process.wait():
            raise SystemExit(f"exit code {process.returncode}\n{(self.folder / 'messages').read_text()}")
        return float(json.loads(self._report.read_text())["peak"])

    def run(self, arguments: Sequence[str]) -> Reading:
        begin = time.perf_counter()
        peak = self.finish(self.start(arguments))
        return Reading(time.perf_counter() - begin, peak)


def reached(peak: float) -> str:
    return "aim" if peak <= AIM else "at most" if peak <= AT_MOST else "NO"


# ---- a few steps of each training row ----


def one_row(row: Row) -> dict[str, float]:
    """Make a few steps in this process."""
    from ours import new_model

    from charlm.engine.threads import Team
    from charlm.text.batches import Batches
    from charlm.training.language_task import LanguageTask
    from charlm.training.loop import Trainer
    from charlm.training.options import TrainingOptions

    before = memory()["rss"]
    model = new_model(row, Team(2))
    options = TrainingOptions(row.rows, row.steps, None, RATE, schedule="constant", valid_interval=1 << 30)
    ids = tokens(row, FEW_STEPS + 1).astype("int32").ravel()
    batches = Batches(
        ids, vocabulary_size=row.symbols, streams=row.rows, bptt=row.steps, shuffle=False, seed=1
    )  # fmt: skip
    trainer = Trainer(LanguageTask(model, batches, options), options)
    for _, _ in zip(range(FEW_STEPS), trainer.run(), strict=False):
        pass
    model.team.close()
    return {"before": before, "weights": model.parameters.flat.nbytes / 2**20, **memory()}


def tell_rows(pattern: str) -> None:
    table = Table(("training row", 54), ("weights MB", 10), ("before MB", 9), ("peak MB", 7), ("MB beyond", 9))
    print(f"\n{table.head()}")
    for row in matching(TRAINING_ROWS, pattern):
        command = [sys.executable, __file__, "--one-row", row.name]
        done = subprocess.run(command, check=True, capture_output=True)
        found = json.loads(done.stdout)
        numbers = [found["weights"], found["before"], found["peak"], found["peak"] - found["before"]]
        print(table.line([row.name, f"{numbers[0]:.1f}", *(f"{number:.0f}" for number in numbers[1:])]), flush=True)


# ---- many steps ----


def tell_steps(runner: Runner, steps: int) -> None:
    """What a process holds while it trains."""
    status, log = Path("/proc/self/status"), runner.folder / "log.jsonl"
    if not status.exists():
        print("\nsteps: this system has no /proc, from which to read what a process holds")
        return
    sizes = ["--hidden-size", "32", "--num-layers", "1", "--batch-size", "8", "--bptt", "16"]
    epochs = max(1, steps * 8 * 16 // (NAMES.stat().st_size * 9 // 10))
    process = runner.start(["train", str(NAMES), "-o", "s.npz", "--epochs", str(epochs), *sizes, "--log", log.name])
    seen: list[tuple[int, int]] = []  # step, kilobytes
    while process.poll() is None:
        time.sleep(0.02)
        held = _held(process.pid)
        lines = log.read_text().splitlines() if log.exists() else []
        if held and lines:
            seen.append((int(json.loads(lines[-1])["step"]), held))
    runner.finish(process)
    last = seen[-1][0]
    table = Table(("after", 20), ("MB", 8))
    print(f"\nLSTM 1 x 32, {last:,} steps in {epochs} epochs\n{table.head()}")
    for tenth in range(1, 11):
        step, held = min(seen, key=lambda pair: abs(pair[0] - last * tenth / 10))
        print(table.line([f"step {step:,}", f"{held / 1024:.1f}"]), flush=True)


def _held(pid: int) -> int:
    """Kilobytes that a process holds; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


# ---- a large text ----


def text_rounds(seed: int = 1) -> Iterator[str]:
    """A text without end: lines of words, frequent and rare, shuffled in each round, one in twenty with a rare word."""
    rng = random.Random(seed)
    syllables = ["".join(pair) for pair in zip("bcdfghklmnprstvw" * 5, "aeiouaeiouaeiou" * 6, strict=False)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(TEXT_WORDS)]
    weights = [1 / (rank + 2.7) for rank in range(TEXT_WORDS)]
    drawn = iter(rng.choices(words, weights, k=TEXT_LINES * LINE_WORDS * 2))
    lines = [" ".join(next(drawn) for _ in range(rng.randint(1, 2 * LINE_WORDS - 1))) for _ in range(TEXT_LINES)]
    while True:
        rng.shuffle(lines)
        changed = (f"{line} {rng.choice(words)}{rng.randrange(100)}" for line in lines)
        yield "".join(f"{next(changed)}\n" if rng.random() < RARE_SHARE else f"{line}\n" for line in lines)


def write_text(path: Path, size: int) -> None:
    written = 0
    with open(path, "w", encoding="ascii") as file:
        for piece in text_rounds():
            written += file.write(piece[: size - written])
            if written >= size:
                return


def tell_corpus(runner: Runner, size: int) -> None:
    text = runner.folder / "text"
    write_text(text, size)
    table = Table(("charlm", 78), ("seconds", 8), ("MB/s", 6), ("peak MB", 7), ("reached", 0))
    print(f"\na text of {size:,} bytes; training on it: at most {AT_MOST} MB, the aim is {AIM}\n{table.head()}")
    little = ["--valid-frac", "0.0001"]  # else validation takes longer than all the rest
    row = ["--vocab-size", "10000", "--hidden-size", "200", "--num-layers", "2", "--batch-size", "20", "--bptt", "35"]
    commands: Iterable[list[str]] = (
        ["tokenize", "text", "-o", "tokens"],
        ["tokenize", "text", "--level", "word", "-o", "words"],
        ["train", "text", "-o", "a.npz", "--time", "10s"],
        ["train", "tokens", "-o", "b.npz", "--time", "10s", *little],
        ["train", "text", "-o", "c.npz", "--time", "10s", "--sequence", "file", *little],
        ["train", "words", "-o", "d.npz", "--time", "10s", *little],
        ["train", "text", "-o", "e.npz", "--time", "10s", "--level", "word", *row, *little],
    )
    for command in commands:
        found = runner.run(command)
        is_training = command[0] == "train"
        speed = "" if is_training else f"{size / found.seconds / 1e6:.0f}"
        verdict = reached(found.peak) if is_training else ""
        print(table.line([" ".join(command), f"{found.seconds:.1f}", speed, f"{found.peak:.0f}", verdict]), flush=True)
    for name in ("text", "tokens", "words"):
        (runner.folder / name).unlink()


# ---- many lines ----


def tell_score(runner: Runner, lines: int) -> None:
    names = NAMES.read_text().splitlines()
    rng = random.Random(1)
    tenth, whole = runner.folder / "tenth", runner.folder / "whole"
    for path, count in ((tenth, lines // 10), (whole, lines)):
        path.write_text("".join(f"{rng.choice(names)}\n" for _ in range(count)))
    runner.run(["train", str(NAMES), "-o", "n.npz", "--hidden-size", "128", "--num-layers", "2", "--time", "5s"])
    table = Table(
        ("charlm score, LSTM 2 x 128, names", 34), ("lines", 10), ("seconds", 8), ("lines/s", 8), ("peak MB", 7)
    )  # fmt: skip
    print(f"\nlines/s without what the tenth took\n{table.head()}")
    for options in ([], ["--json"], ["--per", "token"], ["--per", "corpus"]):
        few = runner.run(["score", "n.npz", "tenth", *options])
        many = runner.run(["score", "n.npz", "whole", *options])
        name, speed = " ".join(options), 0.9 * lines / max(many.seconds - few.seconds, 1e-9)
        print(table.line([name, f"{lines // 10:,}", f"{few.seconds:.1f}", "", f"{few.peak:.0f}"]))
        print(table.line([name, f"{lines:,}", f"{many.seconds:.1f}", f"{speed:,.0f}", f"{many.peak:.0f}"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="some of the parts")
    parser.add_argument("--size", type=float, default=1e9, metavar="BYTES", help="of the text (default: 1e9)")
    parser.add_argument("--lines", type=int, default=1_000_000, metavar="N", help="to score (default: 1,000,000)")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="of the long training (default: 5000)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the training rows whose name matches")
    parser.add_argument("--folder", metavar="DIR", help="where to make the text")
    parser.add_argument("--one-row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_row:
        print(json.dumps(one_row(next(row for row in TRAINING_ROWS if row.name == options.one_row))))
        return
    if options.size < 1000 or options.lines < 10:
        parser.error("--size is at least 1000, --lines at least 10")
    print(describe(None))
    if "rows" in options.only:
        tell_rows(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # Inputs are kept beside the text while they are read.
        os.environ["TMPDIR"] = folder
        runner = Runner(Path(folder))
        if "steps" in options.only:
            tell_steps(runner, options.steps)
        if "corpus" in options.only:
            tell_corpus(runner, int(options.size))
        if "score" in options.only:
            tell_score(runner, options.lines)


if __name__ == "__main__":
    main()
