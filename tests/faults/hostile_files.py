"""Give charlm files that it should not trust: damaged, forged, huge, strange, or full of absurd numbers.

    python -m tests.faults.hostile_files [--files N] [--seed N] [--only I ...] [--processes N] [--folder DIR]

Small models of every task, training states and a token file are made; then N files (10,000 unless said otherwise) that
are mutations of these, one after another, and each is used as a user would: by sample, score, gradients, predict,
train --init-from, train --resume, tokenize --vocab, whatever takes such a file. Commands run in processes of their own,
a file after another in one; a fiftieth of them each in a new process, whose whole memory is counted.

A command must end within 5 s (of the processor: other work does not count) and 500 MB, with exit code 0 and nothing
printed that is no number, or with exit code 1 or 2 and one line that names the file; never with a traceback, code run,
a file left behind, a control character in a message, or a signal. Whatever else it does is a fault, and is told with
the number of its file: --only makes and runs that one again, and --folder keeps it. Exit code 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.hostile_models import consistent
from tests.faults.hostile_mutations import OF_MODELS, OF_TOKENS, Mutation, set_canary
from tests.faults.hostile_seeds import LABELS, Seed, make_seeds
from tests.faults.hostile_worker import SHOWN_BYTES, Outcome, fault_of, run
from tests.faults.machine import machine

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120  # after which a command is killed
IN_A_PROCESS_OF_ITS_OWN = 0.02  # of the files, the first command
PROGRESS_FILES = 500
FILE, STATE = "hostile.npz", "out.resume.npz"


@dataclass(frozen=True)
class Hostile:
    """A file to be used; ``number`` makes it again."""

    number: int
    seed: Seed
    kind: str
    what: str
    data: bytes


def make(number: int, start: int, seeds: Sequence[Seed]) -> Hostile:
    """The file of this number."""
    draw = random.Random(f"{start}:{number}")
    seed = draw.choice(seeds)
    mutations: Sequence[Mutation] = OF_TOKENS if seed.kind == "tokens" else OF_MODELS
    if seed.kind == "model":
        mutations = (*mutations, consistent, consistent, consistent)
    mutation = draw.choice(mutations)
    data, what = mutation(seed.path.read_bytes(), draw)
    return Hostile(number, seed, mutation.__name__, what, data)


def commands(hostile: Hostile) -> list[list[str]]:
    """What a user might do with it, in any order; paths are those in the folder that commands run in."""
    seed, draw = hostile.seed, random.Random(hostile.number)
    corpus, text, one = str(seed.corpus), str(seed.text), ["--threads", draw.choice(["1", "1", "2"])]
    short = ["--epochs", "1", "--batch-size", "4", "--quiet", "--json", *one]
    if seed.kind == "tokens":
        found = [
            ["tokenize", FILE, draw.choice(["--show", "--json"])],
            ["train", FILE, "-o", "out.npz", "--hidden-size", "8", *short],
            ["tokenize", corpus, "--vocab", FILE, "-o", "out.tokens"],
            ["score", str(seed.path.with_name("chars-model.npz")), FILE, *one],
        ]
    elif seed.kind == "state":
        epochs = draw.choice([["--epochs", "2"], ["--time", "0.2s"], []])
        found = [
            ["train", corpus, "-o", "out.npz", "--resume", "--quiet", "--json", *epochs, *one],
            ["train", corpus, "-o", "out.npz", "--hidden-size", "4", *short],
        ]
    else:
        found = [["train", corpus, "-o", "new.npz", "--init-from", FILE, *short],
                 ["tokenize", text, "--vocab", FILE, draw.choice(["--show", "--json"])]]  # fmt: skip
        label = ["--label", draw.choice(LABELS)] if seed.conditioned else []
        if seed.task == "lm":
            every = ["--label", "all"] if seed.conditioned else []
            found += [
                ["sample", FILE, "--seed", "1", *label, *one,
                 *draw.choice([["-n", "3", "--json"], [], ["--beam", "3", "-n", "2", "--log-prob"], ["--greedy"]])],
                ["score", FILE, text, *(every if draw.randrange(2) else label), *one,
                 *draw.choice([["--json"], [], ["--per", "token"], ["--per", "corpus", "--json"]])],
                ["gradients", FILE, text, "--steps", "3", "--positions", "16", *label, *one,
                 *draw.choice([[], ["--json"]])],
            ]  # fmt: skip
        else:
            several = {"classify": ["--top", "3"], "tag": [], "transduce": ["--n-best", "3"]}[seed.task]
            found += [["predict", FILE, text, *one, *draw.choice([[], ["--json"], several])],
                      ["predict", FILE, corpus, "--evaluate", *one, *draw.choice([[], ["--json"]])]]  # fmt: skip
    draw.shuffle(found)
    return found


class Place:
    """A folder for one file after another, and a process that runs commands there.

    Args:
        folder: new.
        in_process: run them in this process instead, whose working folder that must be.
    """

    def __init__(self, folder: Path, *, in_process: bool = False) -> None:
        self.folder, self._in_process = folder, in_process
        folder.mkdir(parents=True)
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def use(self, hostile: Hostile) -> Iterator[tuple[list[str], Outcome, str | None]]:
        """Run commands with the file; each with its outcome and what is wrong with that.

        If the first one refuses the file, one other is tried, else all: where it loads, there is more to go wrong.
        """
        of_its_own = not self._in_process and random.Random(-hostile.number).random() < IN_A_PROCESS_OF_ITS_OWN
        refused = 0
        for arguments in commands(hostile):
            file = STATE if hostile.seed.kind == "state" else FILE
            for left in self.folder.iterdir():
                left.unlink()
            (self.folder / file).write_bytes(hostile.data)
            outcome = self._own(arguments) if of_its_own else self._run(arguments)
            fault = fault_of(outcome, file) or self._left_behind(file)
            of_its_own = False
            yield arguments, outcome, fault
            refused += outcome.code != 0
            if refused > 1:
                return

    def _left_behind(self, file: str) -> str | None:
        known = {file, "out.npz", "out.resume.npz", "new.npz", "new.resume.npz", "out.tokens"}
        left = {path.name for path in self.folder.iterdir()} - known
        return f"left {', '.join(sorted(left))} behind" if left else None

    def _run(self, arguments: list[str]) -> Outcome:
        if self._in_process:
            return run(arguments)
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.hostile_worker", str(self.folder)], cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        process, begin = self._process, time.perf_counter()
        assert process.stdin is not None
        assert process.stdout is not None
        line = ""
        try:
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], PATIENCE_SECONDS)[0]:
                line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if line:
            return Outcome(**json.loads(line))
        process.kill()
        process.communicate()
        self._process = None
        return Outcome(process.returncode, "", "", time.perf_counter() - begin, 0.0)

    def _own(self, arguments: list[str]) -> Outcome:
        """In a process like a user's, whose whole memory counts."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [sys.executable, "-c", "from charlm.cli.main import run; run()", *arguments], cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read(SHOWN_BYTES).decode("utf-8", "replace"))
        return Outcome(process.returncode, *texts, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Report:
    """Counts, the worst, and the faults."""

    def __init__(self, keep: Path | None) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.messages: Counter[str] = Counter()
        self.faults, self.commands = 0, 0
        self.slowest, self.largest = (0.0, ""), (0.0, "")
        self._keep = keep
        self._lock = threading.Lock()

    def add(self, hostile: Hostile, found: Sequence[tuple[list[str], Outcome, str | None]]) -> None:
        with self._lock:
            faults = [one for one in found if one[2] is not None]
            used = [o for a, o, _ in found if FILE in a or "--resume" in a]  # and not only stepped over
            kind = "fault" if faults else "harmless" if any(o.code == 0 for o in used) else "refused"
            self.outcomes[hostile.kind][kind] += 1
            files = sum(counts.total() for counts in self.outcomes.values())
            if files % PROGRESS_FILES == 0:
                print(f"{files:,} files, {self.faults:,} faults", file=sys.stderr, flush=True)
            for arguments, outcome, fault in found:
                self.commands += 1
                name = f"file {hostile.number}, charlm {' '.join(arguments)}"
                self.slowest = max(self.slowest, (outcome.seconds, name))
                self.largest = max(self.largest, (outcome.megabytes, name))
                if fault is not None:
                    self._tell(hostile, name, outcome, fault)

    def broken(self, number: int) -> None:
        """The harness itself is at fault."""
        with self._lock:
            self.faults += 1
            print(f"FAULT  of the harness, file {number}\n{traceback.format_exc()}", flush=True)

    def _tell(self, hostile: Hostile, name: str, outcome: Outcome, fault: str) -> None:
        self.faults += 1
        what = hostile.what.encode("ascii", "backslashreplace").decode()
        print(f"FAULT  {name}\n       {hostile.seed.name}, {hostile.kind}: {what:.300}\n       {fault}", flush=True)
        lines = [line for line in outcome.err.splitlines() if line.strip()]
        for line in lines[-2:]:
            print(f"       {line.encode('ascii', 'backslashreplace').decode():.300}", flush=True)
        if self._keep is not None:
            self._keep.mkdir(exist_ok=True, parents=True)
            (self._keep / f"{hostile.number}-{hostile.kind}").write_bytes(hostile.data)

    def table(self) -> str:
        head = f"{'mutation':24}{'files':>8}{'refused':>9}{'harmless':>10}{'faults':>8}"
        rows = []
        total: Counter[str] = Counter()
        for name, counts in sorted(self.outcomes.items()):
            total += counts
            rows.append(_row(name, counts))
        return "\n".join([head, *rows, _row("all", total)])


def _row(name: str, counts: Counter[str]) -> str:
    return (
        f"{name:24}{sum(counts.values()):>8,}{counts['refused']:>9,}{counts['harmless']:>10,}{counts['fault']:>8,}"
    )  # fmt: skip


def work(numbers: Iterator[int], place: Place, start: int, seeds: Sequence[Seed], report: Report) -> None:
    """Take files until there are no more."""
    for number in numbers:
        try:
            hostile = make(number, start, seeds)
            report.add(hostile, list(place.use(hostile)))
        except Exception:
            report.broken(number)
    place.close()


class _Shared:
    """An iterator for several threads."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers, self._lock = iter(numbers), threading.Lock()

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    parser.add_argument("--only", type=int, nargs="+", metavar="I", help="make and run these files alone, and say how")
    parser.add_argument("--processes", type=int, default=2, help="side by side (default: 2)")
    parser.add_argument("--folder", type=Path, help="keep the files at fault here")
    options = parser.parse_args()
    print(machine(), flush=True)
    begin = time.perf_counter()
    scratch = Path(tempfile.mkdtemp(prefix="charlm-hostile-"))
    try:
        set_canary(scratch / "canary")
        (scratch / "seeds").mkdir()
        seeds = make_seeds(scratch / "seeds")
        report = Report(options.folder)
        numbers = _Shared(options.only or range(options.files))
        places = [Place(scratch / f"place{i}") for i in range(1 if options.only else options.processes)]
        for place in places:  # kernels are compiled before anything is measured
            for seed in seeds:
                list(place.use(Hostile(0, seed, "none", "", seed.path.read_bytes())))
        threads = [threading.Thread(target=work, args=(numbers, p, options.seed, seeds, report)) for p in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if (scratch / "canary").exists():
            report.faults += 1
            print("FAULT  a pickle was run")
    finally:
        shutil.rmtree(scratch)
    print(f"\n{report.table()}")
    print(f"\n{report.commands:,} commands in {time.perf_counter() - begin:.0f} s; faults: {report.faults:,}")
    print(f"slowest   {report.slowest[0]:.2f} s ({report.slowest[1]})")
    print(f"most      {report.largest[0]:.0f} MB beyond what the process held ({report.largest[1]})")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
