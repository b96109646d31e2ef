"""Long loads: whether charlm's memory grows with what it is given, and what many processes at once cost.

    python -m tests.faults.long_loads [--only SCENE ...] [--quick] [--folder DIR]

Six scenes, each checked for right results, too:

    pipe     `charlm score MODEL -` of 5 million lines through one pipe, answered in order
    many     64 processes that score with one model at the same time, a small one and a large one; 16 with a huge one
    cold     8 processes with an empty folder of kernels at the same time, and one alone
    corpus   `charlm train` on a token file of 2 GB, a minute
    draws    `charlm sample` of a million tokens in one text, and of 100,000 lines
    steps    a training of 20,000 small steps with its validations

Memory is read from /proc, so this runs on Linux alone. MB are 2^20 bytes; "own" is what no file backs (RssAnon), "of
files" what is mapped from files, libraries and texts (RssFile), which a system takes back when it needs room. All files
are made in --folder (default: the system's folder for temporary files) and removed; `corpus` needs 2 GB there.

--quick takes a fiftieth of everything, for a first look that is not to be quoted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from charlm import __version__, checkpoint
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.text import token_file
from charlm.text.readers import TOKENS_MAGIC
from charlm.text.records import Counts
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, SPECIAL
from tests.faults.machine import machine
from tests.faults.process_memory import ROOT, Memory, Shares, Watched, charlm, environment, memory_of, shares_of

LETTERS = "abcdefghijklmnopqrstuvwxyz ,.'-"
SCENES = ("pipe", "many", "cold", "corpus", "draws", "steps")
BLOCK_LINES = 5000
MARKS = (0.1, 0.2, 0.4, 1.0)  # of the lines of a pipe: there its memory is read
NAMES = ROOT / "corpora" / "dinosaurs.txt"
WORDS = 1000  # the vocabulary of the large token file
IDS_AT_ONCE = 1 << 22


def write_model(path: Path, layers: int, size: int, sequence: str = "line") -> None:
    """An LSTM of characters with random weights."""
    symbols = [*SPECIAL, *LETTERS, *("\n" if sequence == "file" else "")]
    config = LanguageModelConfig(len(symbols), min(size, 64), size, num_layers=layers)
    model = LanguageModel(config)
    model.initialise(np.random.default_rng(1))
    if sequence == "file":
        model.parameters["output/b"][EOS_ID] = -100.0  # it never ends by itself
    tokenizer = Tokenizer.from_json({**Tokenizer().to_json(), "sequence": sequence})
    header = {"model": config.to_json(), "vocabulary": symbols, "tokenizer": tokenizer.to_json()}
    checkpoint.save(path, header, dict(model.parameters))


# ---- many lines through one pipe ----


def lines_of_block(number: int) -> list[str]:
    """Lines of mixed lengths, 0 to 60 characters and now and then 3000; the same for the same number."""
    rng = random.Random(number)
    text = "".join(rng.choices(LETTERS, k=4000))
    lines = []
    for i in range(BLOCK_LINES):
        length = 3000 if i == number % BLOCK_LINES else rng.randrange(60) * (rng.random() < 0.95)
        begin = rng.randrange(len(text) - length)
        lines.append(text[begin : begin + length])
    return lines


@dataclass(frozen=True)
class PipeResult:
    """The seconds that all took, and the memory at each of `MARKS`; the last is the peak."""

    seconds: float
    at_marks: list[float]
    most: Memory


def score_through_a_pipe(folder: Path, blocks: int) -> PipeResult:
    """Score blocks of lines, and compare each answer's text with the line at its place."""
    write_model(folder / "pipe.npz", 1, 64)
    begin = time.perf_counter()
    watched = Watched(["score", "pipe.npz", "-"], folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed() -> None:
        for number in range(blocks):
            watched.stdin.write("".join(f"{line}\n" for line in lines_of_block(number)).encode())
        watched.stdin.close()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    at_marks = []
    marks = {max(1, round(blocks * mark)) for mark in MARKS}
    for number in range(blocks):
        for line in lines_of_block(number):
            answer = watched.stdout.readline().decode()
            log_prob, tokens, unknowns, text = answer.rstrip("\n").split("\t")
            if text != line or int(tokens) != len(line) + 1 or unknowns != "0" or not float(log_prob) < 0:
                raise SystemExit(f"block {number}: {line!r} was answered with {answer!r}")
        if number + 1 in marks:
            at_marks.append(watched.memory().rss or watched.most.rss)  # after the last line it may be gone
    if watched.stdout.read():
        raise SystemExit("more lines came out than went in")
    feeder.join()
    watched.finish()
    return PipeResult(time.perf_counter() - begin, at_marks, watched.most)


def tell_pipe(folder: Path, part: float) -> None:
    blocks = max(10, round(1000 * part))
    found = score_through_a_pipe(folder, blocks)
    lines = blocks * BLOCK_LINES
    print(f"\npipe: charlm score of an LSTM 1 x 64, {lines:,} lines in {found.seconds:.0f} s, ", end="")
    print(f"{lines / found.seconds:,.0f} lines/s; all answered in order")
    for mark, held in zip(MARKS, found.at_marks, strict=True):
        print(f"  after {round(lines * mark):>9,} lines  {held:6.1f} MB")
    print(f"  at most                {found.most.peak:6.1f} MB, {found.most.anonymous:.1f} MB of them its own")


# ---- many processes at once ----


def score_side_by_side(
    folder: Path, model: str, count: int, size: int = 100
) -> tuple[float, list[Memory], list[Shares]]:
    """Let so many processes score the same ``size`` lines, and hold on while all are at it.

    Returns:
        The seconds until all had answered, and what each held then.
    """
    lines = "".join(f"{line}\n" for line in lines_of_block(0)[1 : size + 1]).encode()
    alone = subprocess.run(
        charlm("score", model, "-"), input=lines, cwd=folder, env=environment(), capture_output=True, check=True
    ).stdout
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(
            charlm("score", model, "-"), cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]  # fmt: skip
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        answers.append(b"".join(process.stdout.readline() for _ in range(size)))
    seconds = time.perf_counter() - begin
    held = [memory_of(process.pid) for process in processes]
    shares = [shares_of(process.pid) for process in processes]
    for process, answer in zip(processes, answers, strict=True):
        rest, _ = process.communicate()
        if process.returncode or answer + rest != alone:
            raise SystemExit(f"exit code {process.returncode}, or another answer than that of one process")
    return seconds, held, shares


def tell_many(folder: Path, part: float) -> None:
    count = max(4, round(64 * part))
    print("\nmany: processes score 100 lines each with one model, all with the answers of one process alone")
    for layers, size, processes in ((1, 64, count), (2, 512, count), (2, 1500, count // 4)):
        write_model(folder / "many.npz", layers, size)
        weights = (folder / "many.npz").stat().st_size / 2**20
        seconds, held, shares = score_side_by_side(folder, "many.npz", processes, 20 if size > 1000 else 100)
        print(
            f"  {processes} of LSTM {layers} x {size}: model {weights:.1f} MB, {seconds:.1f} s; a process: "
            f"RSS {np.median([one.rss for one in held]):.1f} MB, private {np.median([s.private for s in shares]):.1f} "
            f"MB, PSS {np.median([s.proportional for s in shares]):.1f} MB; at most {max(h.peak for h in held):.1f} "
            f"MB; all: {sum(s.proportional for s in shares):,.0f} MB",
            flush=True,
        )
        (folder / "many.npz").unlink()


# ---- an empty folder of kernels ----


@dataclass(frozen=True)
class ColdResult:
    """Seconds until all were done, of the processors; how often each kernel was compiled."""

    seconds: float
    busy_seconds: float
    compiled: Counter[str]


def start_cold(folder: Path, count: int, arguments: Sequence[str]) -> ColdResult:
    """Run a command so many times at once with an empty folder of kernels."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        script = str(ROOT / "tests" / "benchmarks" / "compilations.py")
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        processes = [
            subprocess.Popen(
                [sys.executable, script, f"compiled{i}.json", *(word.replace("{i}", str(i)) for word in arguments)],
                cwd=folder, env=environment(CHARLM_CACHE_DIR=cache), stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for i in range(count)
        ]  # fmt: skip
        codes = {process.wait() for process in processes}
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if codes != {0}:
        raise SystemExit(f"exit codes {codes}")
    compiled: Counter[str] = Counter()
    for i in range(count):
        found = json.loads((folder / f"compiled{i}.json").read_text())
        compiled.update(name for name, _ in found if name.startswith("engine."))
    busy_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ColdResult(seconds, busy_seconds, compiled)


def tell_cold(folder: Path, part: float) -> None:
    count = 8 if part == 1 else 3
    few = folder / "few.txt"
    few.write_text("".join(NAMES.read_text().splitlines(keepends=True)[:40]))
    command = ["train", "few.txt", "-o", "cold{i}.npz", "--epochs", "1", "--hidden-size", "16", "--quiet"]
    print("\ncold: charlm train of 40 lines with an empty folder of kernels")
    models = []
    for processes in (1, count):
        found = start_cold(folder, processes, command)
        models += [checkpoint.load(folder / f"cold{i}.npz").arrays for i in range(processes)]
        print(
            f"  {processes} at once: {sum(found.compiled.values())} compilations, {found.busy_seconds:.1f} s of the "
            f"processors, {found.seconds:.1f} s until all were done",
            flush=True,
        )
    same = all(
        array.tobytes() == models[0][name].tobytes() for arrays in models for name, array in arrays.items()
    )  # fmt: skip
    if not same:
        raise SystemExit("the models differ")
    print("  all models have the same bits")


# ---- a large token file ----


def write_token_file(path: Path, ids: int) -> None:
    """A token file of random words, a sequence of about 50; its ids take two bytes each."""
    rng = np.random.default_rng(1)
    symbols = [*SPECIAL, *(f"w{i}" for i in range(WORDS - len(SPECIAL)))]
    block = rng.integers(len(SPECIAL), WORDS, IDS_AT_ONCE, dtype=np.uint16)
    block[rng.random(IDS_AT_ONCE) < 0.02] = EOS_ID
    block[-1] = EOS_ID
    ends = sum(int(np.count_nonzero(part == EOS_ID)) for part in _repeated(block, ids))
    tokens = ids - ends
    counts = Counts(
        ends + int(next(_repeated(block, ids % IDS_AT_ONCE or IDS_AT_ONCE))[-1] != EOS_ID), tokens, WORDS - 2, 0,
        4 * tokens, tokens,
    )  # fmt: skip
    header = {
        "format": token_file.FORMAT, "schema": token_file.SCHEMA, "charlm": __version__,
        "tokenizer": Tokenizer.from_json({**Tokenizer().to_json(), "level": "word"}).to_json(),
        "counts": asdict(counts), "names": ["random"], "sha256": "0" * 64, "dtype": "uint16", "length": ids,
        "symbols": symbols,
    }  # fmt: skip
    head = TOKENS_MAGIC + json.dumps(header).encode() + b"\n"
    with open(path, "wb") as file:
        file.write(head.ljust(-(-len(head) // token_file.ALIGNMENT_BYTES) * token_file.ALIGNMENT_BYTES, b"\0"))
        for part in _repeated(block, ids):
            file.write(part.data)


def _repeated(block: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for first in range(0, count, block.size):
        yield block[: count - first]


def train_on(folder: Path, ids: int, seconds: int) -> tuple[Memory, str]:
    """Train a small model on so many ids; the most that it held, and its last line."""
    write_token_file(folder / "tokens", ids)
    size = ["--hidden-size", "128", "--num-layers", "1", "--valid-frac", "0.0001", "--time", f"{seconds}s"]
    watched = Watched(["train", "tokens", "-o", "corpus.npz", *size], folder, stdout=subprocess.DEVNULL)
    messages = watched.finish()
    (folder / "tokens").unlink()
    return watched.most, messages.splitlines()[-2]


def tell_corpus(folder: Path, part: float) -> None:
    ids = round(1e9 * part)
    most, line = train_on(folder, ids, 60 if part == 1 else 5)
    print(f"\ncorpus: charlm train on a token file of {2 * ids:,} bytes, LSTM 1 x 128\n  {line}")
    print(f"  at most {most.peak:.1f} MB; its own {most.anonymous:.1f} MB, of files {most.file:.1f} MB", flush=True)


# ---- many draws ----


def draw(folder: Path, arguments: Sequence[str], marks: Sequence[int]) -> tuple[float, list[float], Memory, int]:
    """Sample, and look at the memory when so many bytes have come; seconds, MB at the marks, most, bytes in all."""
    begin = time.perf_counter()
    watched = Watched(["sample", *arguments, "--seed", "1"], folder, stdout=subprocess.PIPE)
    held, come = [], 0
    while data := watched.stdout.read(4096):
        come += len(data)
        while len(held) < len(marks) and come >= marks[len(held)]:
            held.append(watched.memory().rss)
    watched.finish()
    return time.perf_counter() - begin, held, watched.most, come


def tell_draws(folder: Path, part: float) -> None:
    write_model(folder / "file.npz", 1, 64, "file")
    write_model(folder / "line.npz", 1, 64)
    length, count = round(1e6 * part), round(1e5 * part)
    scenes = (
        (f"one text of {length:,} characters", ["file.npz", "--max-length", str(length)], length),
        (f"{count:,} lines of at most 40", ["line.npz", "-n", str(count), "--max-length", "40"], 20 * count),
    )
    print("\ndraws: charlm sample of an LSTM 1 x 64")
    for name, arguments, size in scenes:
        seconds, held, most, come = draw(folder, arguments, [round(size * mark) for mark in (0.1, 0.5, 0.99)])
        shown = ", ".join(f"{one:.1f}" for one in held)
        print(f"  {name}: {come:,} bytes in {seconds:.1f} s; {shown} MB after 10, 50 and 99 %; at most {most.peak:.1f}")


# ---- many steps ----


def train_steps(folder: Path, steps: int) -> list[tuple[int, float]]:
    """Make many small steps; (step, MB) at each look."""
    lines = NAMES.read_text().splitlines()[:400]
    (folder / "names.txt").write_text("".join(f"{line}\n" for line in lines))
    size = ["--hidden-size", "16", "--num-layers", "1", "--batch-size", "8", "--bptt", "16"]
    epochs = max(1, steps * 8 * 16 // sum(len(line) + 1 for line in lines))
    log = folder / "log.jsonl"
    watched = Watched(
        ["train", "names.txt", "-o", "steps.npz", *size, "--epochs", str(epochs), "--log", log.name, "--quiet"],
        folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seen = []
    while watched.process.poll() is None:
        time.sleep(0.05)
        held = watched.memory().rss
        lines = log.read_text().splitlines()[-2:] if log.exists() else []
        if held and len(lines) == 2:
            seen.append((int(json.loads(lines[0])["step"]), held))
    watched.finish()
    return seen


def tell_steps(folder: Path, part: float) -> None:
    seen = train_steps(folder, round(20_000 * part))
    last = seen[-1][0]
    print(f"\nsteps: charlm train, LSTM 1 x 16, {last:,} steps")
    for mark in (0.1, 0.5, 1.0):
        step, held = min(seen, key=lambda pair: abs(pair[0] - last * mark))
        print(f"  after {step:>7,} steps  {held:.1f} MB")


TELLERS: dict[str, Callable[[Path, float], None]] = {
    "pipe": tell_pipe, "many": tell_many, "cold": tell_cold, "corpus": tell_corpus, "draws": tell_draws,
    "steps": tell_steps,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCENES, default=SCENES, metavar="SCENE", help="some of the scenes")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of everything")
    parser.add_argument("--folder", metavar="DIR", help="where to make the files")
    options = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("this system has no /proc, from which to read what a process holds")
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["TMPDIR"] = folder
        for scene in options.only:
            TELLERS[scene](Path(folder), 0.02 if options.quick else 1.0)


if __name__ == "__main__":
    main()
