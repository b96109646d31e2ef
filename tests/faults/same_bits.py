"""The same seed and flags, the same bits: with other threads, locales, time zones, hashes, folders, through --resume.

    python -m tests.faults.same_bits [--case NAME ...] [--condition NAME ...] [--quick]

For each case (a task with its options) and each condition a small model is trained in a process of its own, and then
used in further ones (sample and score, or predict). Compared are all arrays of the model and of its training state, the
history without its times, and the standard output of what uses the model, byte by byte; a digest of all of it stands in
the table, and those that differ from the first row are marked. Exit code 1 if any does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charlm import checkpoint
from tests.benchmarks.table import Table
from tests.faults.machine import machine

ROOT = Path(__file__).parents[2]
TIMES = ("seconds", "clipped")  # of a validation's record; the latter is a share that is rounded
LONGEST_SECONDS = 600  # of one process; then something hangs
# `--threads 4` is reduced to the cores that there are, so a process may be told that there are four.
MANY_CORES = (
    "import charlm.engine.threads as threads\n"
    "threads.available_cores = lambda: 4\n"
    "from charlm.cli.main import run\n"
    "run()\n"
)
TURKISH = "tr_TR.UTF-8"
FLAGS = (
    "--hidden-size", "12", "--embedding-size", "8", "--batch-size", "8", "--schedule", "constant", "--dropout", "0.2",
    "--valid-frac", "0.1", "--seed", "7", "--quiet",
)  # fmt: skip
EPOCHS = 2


@dataclass(frozen=True)
class Case:
    """What is trained, and how the model is used."""

    name: str
    kind: str  # of the text
    options: tuple[str, ...]
    uses: tuple[tuple[str, ...], ...]


SAMPLE = ("sample", "model.npz", "-n", "5", "--seed", "3", "--max-length", "40", "--log-prob")
SCORE = ("score", "model.npz", "use.txt")
PREDICT = ("predict", "model.npz", "use.txt", "--json")
CASES = (
    Case("char", "names", ("--cell", "lstm", "--num-layers", "2", "--bptt", "16"), (SAMPLE, SCORE)),
    Case("word", "names", ("--level", "word", "--cell", "gru", "--lowercase", "--bptt", "8"), (SAMPLE, SCORE)),
    Case("byte", "names", ("--level", "byte", "--cell", "gru", "--bptt", "32"), (SAMPLE, SCORE)),
    Case("classify", "labels", ("--task", "classify", "--cell", "lstm", "--bidirectional"), (PREDICT,)),
    Case("tag", "tags", ("--task", "tag", "--cell", "gru"), (PREDICT,)),
    Case("transduce", "pairs", ("--task", "transduce", "--cell", "lstm", "--attention"), (PREDICT,)),
)


@dataclass(frozen=True)
class Condition:
    """What differs from the first run.

    Attributes:
        environment: variables that are set.
        threads: as ``--threads`` has them.
        folder: the name of the one that everything lies in.
        python: flags of the interpreter.
        resumes: whether the training is made in two parts.
        needs_locale: one that must be generated first, if any.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    folder: str = "work"
    python: tuple[str, ...] = ()
    resumes: bool = False
    needs_locale: str = ""


ODD_FOLDER = "it's a földer \u4e2d\u6587 \u0130"
PLAIN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONDITIONS = (
    Condition("first"),
    Condition("again"),
    Condition("1 thread", threads=1),
    Condition("2 threads", threads=2),
    Condition("4 threads", threads=4),
    Condition("resumed", resumes=True),
    Condition("resumed, 4 threads then 1", resumes=True, threads=4),
    Condition("LC_ALL=C", {"LC_ALL": "C"}),
    Condition("LC_ALL=C, ASCII", PLAIN_ASCII),
    Condition("LC_ALL=tr_TR.UTF-8", {"LC_ALL": TURKISH, "LANG": TURKISH}, needs_locale=TURKISH),
    Condition("TZ=Pacific/Auckland", {"TZ": "Pacific/Auckland"}),
    Condition("PYTHONHASHSEED=0", {"PYTHONHASHSEED": "0"}),
    Condition("PYTHONHASHSEED=1", {"PYTHONHASHSEED": "1"}),
    Condition("PYTHONHASHSEED=random", {"PYTHONHASHSEED": "random"}),
    Condition("odd folder", folder=ODD_FOLDER),
    Condition("python -O", python=("-O",)),
    Condition("PYTHONUTF8=0", {"PYTHONUTF8": "0"}),
    Condition("another cache of kernels", {"XDG_CACHE_HOME": "cache"}),
    Condition("BLAS with 2 threads", {"OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}),
)
QUICK = Condition(
    "all at once", {"LC_ALL": "C", "TZ": "Pacific/Auckland", "PYTHONHASHSEED": "random"}, threads=4, folder=ODD_FOLDER,
    python=("-O",), resumes=True,
)  # fmt: skip


# ---- texts ----


def write_texts(folder: Path, kind: str) -> None:
    """``text.txt`` to train on and ``use.txt`` to use the model on: letters of several scripts, the Turkish i's too."""
    rng = random.Random(kind)
    syllables = ("ka", "İz", "ıs", "ro", "ña", "ло", "ve", "中", "té", "shi", "Ig", "uö")

    def word() -> str:
        return "".join(rng.choices(syllables, k=rng.randint(1, 3)))

    words = [word() for _ in range(40)]
    lines = []
    for number in range(120):
        some = rng.choices(words, k=rng.randint(1, 4))
        if kind == "labels":
            lines.append(f"{'αβγ'[number % 3]}\t{' '.join(some)}")
        elif kind == "pairs":
            lines.append(f"{some[0]}\t{some[0][::-1]}")
        elif kind == "tags":
            lines += [*(f"{one} {'LONG' if len(one) > 4 else 'kısa'}" for one in some), ""]
        else:
            lines.append(" ".join(some))
    (folder / "text.txt").write_text("\n".join(lines) + "\n", "utf-8")
    used = [
        line.split("\t")[-1 if kind == "labels" else 0].split(" ")[0 if kind == "tags" else slice(None)]
        for line in lines
    ]
    shown = [" ".join(one) if isinstance(one, list) else one for one in used[:30]]
    (folder / "use.txt").write_text("\n".join(shown) + "\n", "utf-8")


# ---- runs ----


class Failure(Exception):
    """A command did not do what it should, or a run was not like another."""


def finished(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """A process that has ended; `Failure` if it does not."""
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=LONGEST_SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(command)}: not done after {LONGEST_SECONDS} s") from None


def run_command(arguments: Sequence[str], folder: Path, condition: Condition, home: Path) -> bytes:
    """The standard output of one command in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    environment |= {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **condition.environment}
    if condition.needs_locale:
        environment["LOCPATH"] = str(home / "locales")
    if "XDG_CACHE_HOME" in condition.environment:
        environment["XDG_CACHE_HOME"] = str(home / condition.environment["XDG_CACHE_HOME"])
    start = ["-c", MANY_CORES] if "4" in arguments[-1:] and "--threads" in arguments else ["-m", "charlm"]
    command = [sys.executable, *condition.python, *start, *arguments]
    done = finished(command, folder, environment)
    if done.returncode:
        raise Failure(
            f"{condition.name}: charlm {' '.join(arguments)}: exit code {done.returncode}, {done.stderr[-300:]!r}"
        )
    return done.stdout


def train(case: Case, condition: Condition, folder: Path, home: Path) -> None:
    """Train ``model.npz``; in two parts if the condition says so, the second with one thread."""
    files = ("train", "text.txt", "-o", "model.npz")
    threads = () if condition.threads is None else ("--threads", str(condition.threads))
    if not condition.resumes:
        run_command([*files, *case.options, *FLAGS, "--epochs", str(EPOCHS), *threads], folder, condition, home)
        return
    run_command([*files, *case.options, *FLAGS, "--epochs", "1", *threads], folder, condition, home)
    rest = ("--resume", "--epochs", str(EPOCHS), "--quiet", *(threads and ("--threads", "1")))
    run_command([*files, *rest], folder, condition, home)


def parts_of(folder: Path, outputs: Sequence[bytes]) -> dict[str, bytes]:
    """All that must be the same, by name."""
    parts = {f"stdout {number}": output for number, output in enumerate(outputs)}
    for name, kind in (("model.npz", "model"), ("model.resume.npz", "training-state")):
        loaded = checkpoint.load(folder / name, kind=kind)
        for array_name, array in loaded.arrays.items():
            head = f"{array.dtype} {array.shape} ".encode()
            parts[f"{name} {array_name}"] = head + array.tobytes()
        history = [{key: one[key] for key in one if key not in TIMES} for one in loaded.header["history"]]
        loaded.header["training"].pop("epochs")  # of a model that was best before its training was resumed for more
        for key in ("vocabulary", "labels", "target_vocabulary", "characters", "model", "training", "corpus"):
            parts[f"{name} {key}"] = json.dumps(loaded.header.get(key)).encode()
        parts[f"{name} history"] = json.dumps(history).encode()
    return parts


def digest(parts: Mapping[str, bytes]) -> str:
    """Of all parts, in hexadecimal."""
    whole = hashlib.sha256()
    for name in sorted(parts):
        whole.update(name.encode() + b"\0" + hashlib.sha256(parts[name]).digest())
    return whole.hexdigest()


def differences(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """The names of the parts that are not the same."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def run(case: Case, condition: Condition, home: Path) -> dict[str, bytes]:
    """Train and use a model under a condition; everything that must be the same."""
    folder = Path(tempfile.mkdtemp(dir=home)) / condition.folder
    folder.mkdir()
    try:
        write_texts(folder, case.kind)
        train(case, condition, folder, home)
        threads = () if condition.threads is None else ("--threads", str(condition.threads))
        outputs = [run_command([*use, *threads], folder, condition, home) for use in case.uses]
        if not all(outputs):
            raise Failure(f"{condition.name}, {case.name}: a command printed nothing")
        return parts_of(folder, outputs)
    finally:
        shutil.rmtree(folder.parent)


def generate_locale(name: str, home: Path) -> str:
    """Make a locale in a folder of its own; why it cannot be had, or nothing."""
    folder = home / "locales"
    folder.mkdir(exist_ok=True)
    language, _, charset = name.partition(".")
    tool = shutil.which("localedef")
    if tool is None:
        return "no localedef here"
    command = [tool, "--no-archive", "-i", language, "-f", charset, str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / name).is_dir():
        return f"localedef: {(done.stderr or 'failed').strip().splitlines()[-1]}"
    code = "import locale; locale.setlocale(locale.LC_ALL, '')"
    environment = os.environ | {"LC_ALL": name, "LOCPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    return "" if done.returncode == 0 else "the locale cannot be set"


# ---- the table ----


def chosen(all_of: Sequence[Any], names: Sequence[str] | None) -> list[Any]:
    return [one for one in all_of if not names or one.name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="may be repeated")
    parser.add_argument(
        "--condition", action="append", choices=[c.name for c in CONDITIONS[1:]], help="may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="the first run and one of everything at once")
    options = parser.parse_args()
    cases = chosen(CASES, options.case)
    conditions = [CONDITIONS[0], *([QUICK] if options.quick else chosen(CONDITIONS[1:], options.condition))]
    print(f"{machine()}\n", flush=True)
    table = Table(("condition", 26), *((case.name, 10) for case in cases))
    begun, found, processes = time.perf_counter(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        home, first = Path(folder), {}
        print(table.head(), flush=True)
        for condition in conditions:
            reason = generate_locale(condition.needs_locale, home) if condition.needs_locale else ""
            cells = []
            for case in cases:
                if reason:
                    cells.append("skipped")
                    continue
                try:
                    parts = run(case, condition, home)
                except Failure as failure:
                    found.append(str(failure))
                    cells.append("FAILED")
                    continue
                processes += 1 + condition.resumes + len(case.uses)
                wrong = differences(first.setdefault(case.name, parts), parts)
                found += [f"{condition.name}, {case.name}: {name}" for name in wrong]
                cells.append("DIFFERS" if wrong else digest(parts)[:10])
            print(table.line([condition.name, *cells]) + (f"  {reason}" if reason else ""), flush=True)
    print(f"\n{processes} processes in {time.perf_counter() - begun:.0f} s; {len(found)} differences or failures")
    for line in found[:40]:
        print(f"  {line}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
