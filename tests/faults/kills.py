"""Kill `charlm train` with SIGKILL again and again, resume it, and compare with a training that was never killed.

    python -m tests.faults.kills [--kills N] [--seed N] [--case NAME ...]

For each case (a task with its options) a training runs undisturbed. Then it runs anew in rounds, each killed at moments
drawn at random and resumed until it ends: while it starts, makes steps, validates, as soon as a temporary file appears,
or a file was replaced. After every kill all models and the state beside them must load, whole, and no more than one
temporary file may lie about. At the end of a round every array of every file must have the same bits as without kills,
headers and log may differ in times, commands and sessions only, and nothing else may lie in the folder. Exit code 1 if
anything else was found.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from charlm import checkpoint
from charlm.errors import CharlmError
from charlm.workflows.train_plan import TRAINING_STATE
from tests.faults.machine import machine

ROOT = Path(__file__).parents[2]
CHARLM = (sys.executable, "-m", "charlm")
LONGEST_SECONDS = 120  # of one run; then something hangs
OF_A_SESSION = ("seconds", "command", "sessions", "charlm", "threads")  # may differ, wherever they stand in a header
MOMENTS = ("start", "step", "validation", "saving", "replaced")
SMALL = ("--hidden-size", "12", "--embedding-size", "8", "--batch-size", "8", "--threads", "1", "--patience", "9999")


@dataclass(frozen=True)
class Case:
    """What is trained: a corpus of the project's, cut short, and options."""

    name: str
    corpus: str
    lines: int
    options: tuple[str, ...]
    displaces: bool = False  # a finished training lies there already
    valid_copies: int = 0  # of the text, to validate with: so many that hardly anything but validations takes time

    def write_text(self, folder: Path) -> None:
        with open(ROOT / "corpora" / self.corpus, encoding="utf-8") as file:
            text = "".join(islice(file, self.lines))
        (folder / "text").write_text(text, "utf-8")
        (folder / "valid").write_text(text * self.valid_copies, "utf-8")

    def arguments(self) -> list[str]:
        return ["train", "text", "-o", "out/m.npz", "--log", "out/log.jsonl", *SMALL, *self.options]


EVERY_EPOCH = ("--schedule", "constant")  # validates after each
CASES = (
    Case(
        "lm", "dinosaurs.txt", 1400,
        ("--epochs", "40", *EVERY_EPOCH, "--bptt", "10", "--keep", "3", "--dropout", "0.2", "--valid-frac", "0.4"),
    ),
    Case(
        "tag", "visits.conll", 2500,
        ("--epochs", "30", *EVERY_EPOCH, "--task", "tag", "--cell", "gru", "--valid-frac", "0.4"),
    ),
    Case(
        "transduce", "sounds.tsv", 300,
        ("--epochs", "30", "--schedule", "plateau", "--task", "transduce", "--attention", "--keep", "2"),
    ),
    Case(
        "lm anew", "dinosaurs.txt", 600,
        ("--epochs", "20", "--bptt", "10", "--cell", "rnn", "--keep", "1"), displaces=True,
    ),
    Case(
        "lm, long validations", "dinosaurs.txt", 200,
        ("--epochs", "30", *EVERY_EPOCH, "--bptt", "10", "--valid", "valid"), valid_copies=100,
    ),
)  # fmt: skip


@dataclass
class Report:
    """What was done and found."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)  # by the moment meant
    hits: Counter[str] = field(default_factory=Counter)  # by what the files then looked like
    faults: list[str] = field(default_factory=list)


class Training:
    """A place in which a case is trained, killed and resumed; what it writes is in a folder of its own there."""

    def __init__(self, case: Case, place: Path, command: Sequence[str], report: Report) -> None:
        self.case, self.place, self.command, self.report = case, place, command, report
        self.folder = place / "out"
        self.folder.mkdir(parents=True)
        case.write_text(place)
        (place / "stderr").touch()
        if case.displaces:
            self.run_to_end("--epochs", "1", "--seed", "5", "--keep", "0")
            (self.folder / "log.jsonl").unlink()

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        # Anew if there is no state, or only that of the training that lay there.
        arguments = [*self.case.arguments(), *more, *(["--resume"] if self.is_begun() else [])]
        process = subprocess.Popen(
            [*self.command, *arguments], cwd=self.place, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.copier = threading.Thread(target=self._copy, args=(process,))
        self.copier.start()
        return process

    def _copy(self, process: subprocess.Popen[bytes]) -> None:
        """What is told goes into a file, by way of a pipe: a file's size can be limited for the process."""
        assert isinstance(process.stderr, io.BufferedReader)
        with process.stderr, open(self.place / "stderr", "ab", buffering=0) as file:
            while told := process.stderr.read1():
                file.write(told)

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code; all that was told is in the file then."""
        try:
            return process.wait(LONGEST_SECONDS)
        finally:
            process.kill()
            process.wait()
            self.copier.join()

    def told(self) -> list[str]:
        """The lines on stderr, of all runs."""
        return (self.place / "stderr").read_text("utf-8").splitlines()

    def is_begun(self) -> bool:
        path = self.folder / "m.resume.npz"
        if not path.exists():
            return False
        return not self.case.displaces or checkpoint.load(path, kind=TRAINING_STATE).header["training"]["seed"] != 5

    def run_to_end(self, *more: str) -> None:
        code = self.wait(self.start(*more))
        self.expect(code == 0, f"exit code {code}: {self.told()[-1:]}")

    def expect(self, is_so: bool, fault: str) -> None:
        if not is_so:
            self.report.faults.append(f"{self.case.name}, after {self.report.kills.total()} kills: {fault}")

    def kill_at(self, moment: str, draw: random.Random) -> bool:
        """Start, kill at a moment; whether it was still alive then."""
        process = self.start()
        try:
            for _ in WAITS[moment](self, draw):
                if process.poll() is not None:
                    break
            process.kill()
        finally:
            code = self.wait(process)
        self.expect(code in (0, -signal.SIGKILL), f"exit code {code}: {self.told()[-1:]}")
        return code == -signal.SIGKILL

    # ---- what lies there ----

    def names(self) -> set[str]:
        return set(os.listdir(self.folder))

    def log_lines(self) -> list[dict[str, Any]]:
        """The whole lines of the log."""
        try:
            text = (self.folder / "log.jsonl").read_text("utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def loaded(self) -> dict[str, checkpoint.Checkpoint]:
        """All models, and the state, by name; a file that does not load is a fault."""
        found = {}
        for name in sorted(self.names()):
            if name.endswith(".npz"):
                kind = TRAINING_STATE if name.endswith(".resume.npz") else "model"
                try:
                    found[name] = checkpoint.load(self.folder / name, kind=kind)
                except CharlmError as error:
                    self.expect(False, f"does not load: {error}")
        return found

    def check_after_kill(self) -> None:
        found = self.loaded()
        temporary = [name for name in self.names() if name.endswith(".tmp")]
        self.expect(len(temporary) <= 1, f"{len(temporary)} temporary files")
        state, model = found.get("m.resume.npz"), found.get("m.npz")
        if state is not None:
            kept = state.header["kept"]
            steps = {int(match[1]) for match in (re.search(r"step-(\d+)", name) for name in found) if match}
            strange = steps - set(kept["steps"]) - set(kept["dropped"])
            self.expect(not strange, f"models that the state does not know of: {sorted(strange)}")
        last = self.log_lines()[-1:]
        if temporary:
            self.report.hits["while a file was written"] += 1
        elif state is None or model is None:
            self.report.hits["before there were both files"] += 1
        elif self.case.valid_copies:
            self.report.hits["a start, or (nine in ten) a validation"] += 1
        elif len(model.header["history"]) > len(state.header["history"]):
            self.report.hits["between model and state"] += 1
        elif last and last[0]["step"] > state.header["progress"]["step"]:
            is_due = last[0]["step"] % state.header["training"]["valid_interval"] == 0
            self.report.hits["validation" if is_due else "steps"] += 1
        else:
            self.report.hits["no step after the state yet"] += 1


# ---- moments: each yields until it has come ----

Wait = Callable[[Training, random.Random], Iterator[None]]


def _sleep(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(min(0.005, max(0.0, end - time.monotonic())))


def _until(condition: Callable[[], bool]) -> Iterator[None]:
    while not condition():
        yield
        time.sleep(0.0002)


def _log_grows(training: Training) -> Iterator[None]:
    """Until this process makes steps."""
    path = training.folder / "log.jsonl"

    def mark() -> tuple[int, int]:
        try:
            status = path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_size, status.st_mtime_ns

    before = mark()
    yield from _until(lambda: mark() != before and mark()[0] > 0)


def at_start(training: Training, draw: random.Random) -> Iterator[None]:
    yield from _sleep(draw.uniform(0, 2))


def at_step(training: Training, draw: random.Random) -> Iterator[None]:
    yield from _log_grows(training)
    yield from _sleep(draw.expovariate(4))


def at_validation(training: Training, draw: random.Random) -> Iterator[None]:
    """A line of a validation appears while its files are being written, that of a step often right before one."""
    yield from _log_grows(training)
    yield from _sleep(draw.uniform(0, 0.2))
    path, event = training.folder / "log.jsonl", draw.choice([b'{"event": "validation"', b'{"event": "step"'])
    size = path.stat().st_size
    yield from _until(lambda: event in path.read_bytes()[size:])
    yield from _sleep(draw.uniform(0, 0.004))


def at_saving(training: Training, draw: random.Random) -> Iterator[None]:
    yield from _log_grows(training)
    yield from _sleep(draw.uniform(0, 0.2))
    before = training.names()
    yield from _until(lambda: any(name.endswith(".tmp") for name in training.names() - before))
    yield from _sleep(draw.choice([0, draw.uniform(0, 0.003)]))


def at_replaced(training: Training, draw: random.Random) -> Iterator[None]:
    """As soon as a model or the state is new, or an old one was removed."""
    yield from _log_grows(training)
    yield from _sleep(draw.uniform(0, 0.2))

    def marks() -> list[tuple[str, int]]:
        found = [(entry.name, entry.inode()) for entry in os.scandir(training.folder)]
        return sorted(one for one in found if one[0].endswith(".npz"))

    before = marks()
    yield from _until(lambda: marks() != before)
    yield from _sleep(draw.choice([0, draw.uniform(0, 0.003)]))


WAITS: dict[str, Wait] = dict(zip(MOMENTS, (at_start, at_step, at_validation, at_saving, at_replaced), strict=True))


# ---- comparing ----


def without_times(value: Any) -> Any:
    """A header, or a line of a log, without what differs from session to session."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in OF_A_SESSION}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def course(lines: list[dict[str, Any]]) -> list[Any]:
    """A log without times; who resumes at the end writes that it is the end once more."""
    found = without_times(lines)
    return [line for i, line in enumerate(found) if line["event"] != "end" or line not in found[:i]]


def differences(found: Training, expected: Training) -> Iterator[str]:
    """What a training that was killed has left otherwise than one that was not."""
    if found.names() != expected.names():
        yield f"other files: {sorted(found.names() ^ expected.names())}"
    if course(found.log_lines()) != course(expected.log_lines()):
        yield "the log differs"
    others = expected.loaded()
    for name, one in found.loaded().items():
        other = others.get(name)
        if other is None:
            continue
        if without_times(one.header) != without_times(other.header):
            keys = [key for key in one.header if without_times(one.header[key]) != without_times(other.header.get(key))]
            yield f"{name}: the header differs in {', '.join(keys)}"
        for array in sorted(set(one.arrays) | set(other.arrays)):
            both = one.arrays.get(array), other.arrays.get(array)
            if both[0] is None or both[1] is None or not np.array_equal(both[0].view(np.uint8), both[1].view(np.uint8)):
                yield f"{name}: {array} differs"


def torment(
    case: Case, kills: int, draw: random.Random, folder: Path, report: Report, command: Sequence[str] = CHARLM
) -> None:
    """Kill a case's training so many times, in as many rounds as that takes, and compare each round's end."""
    undisturbed = Training(case, folder / "undisturbed", command, report)
    undisturbed.run_to_end()
    done, queue = 0, []
    while done < kills:
        report.rounds += 1
        training = Training(case, folder / f"round{report.rounds}", command, report)
        is_alive = True
        while is_alive and done < kills:
            queue = queue or draw.sample(MOMENTS, len(MOMENTS))
            moment = queue.pop()
            is_alive = training.kill_at(moment, draw)
            if is_alive:
                done += 1
                report.kills[moment] += 1
                training.check_after_kill()
        if is_alive:
            training.run_to_end()
        for difference in differences(training, undisturbed):
            training.expect(False, difference)
        shutil.rmtree(training.place)
    shutil.rmtree(undisturbed.place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many, of all cases together (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    names = [case.name for case in CASES]
    parser.add_argument("--case", choices=names, nargs="+", default=names, help="only these")
    options = parser.parse_args()
    print(machine(), flush=True)
    cases = [case for case in CASES if case.name in options.case]
    report = Report()
    begin = time.perf_counter()
    for number, case in enumerate(cases):
        kills = options.kills // len(cases) + (number < options.kills % len(cases))
        faults, before, rounds = len(report.faults), time.perf_counter(), report.rounds
        with tempfile.TemporaryDirectory(prefix="charlm-kills-") as folder:
            torment(case, kills, random.Random(f"{options.seed} {case.name}"), Path(folder), report)
        print(
            f"{case.name:20} {kills:4} kills in {report.rounds - rounds} trainings, "
            f"{len(report.faults) - faults} faults, {time.perf_counter() - before:.0f} s",
            flush=True,
        )
    for fault in report.faults:
        print(f"FAULT  {fault}")
    print(f"\nmeant     {', '.join(f'{moment} {count}' for moment, count in report.kills.most_common())}")
    print(f"hit       {', '.join(f'{what} {count}' for what, count in report.hits.most_common())}")
    print(
        f"{report.kills.total()} kills, {report.rounds} trainings compared, {len(report.faults)} faults, "
        f"{time.perf_counter() - begin:.0f} s"
    )
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
