"""A model that was trained with this machine's vectors, on narrower ones: the same scores but for rounding.

    python -m tests.faults.narrow_vectors [--case NAME ...] [--level NAME ...] [--epochs N]

A level is a processor that this one can stand for: what Numba compiles for (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), and
what NumPy and its library dispatch to. For each case a model is trained with all that there is, and used on every
level: the log probability of each line must be within 1e-5 of the first, relatively; of a tagger, whose output has no
probabilities, the tags are compared. Then a few steps are trained on each level: losses and weights may differ by
rounding only, and the model must score on the first level as on its own. At the end the first level is used once more:
bits that differ from its first would mean that it had loaded another level's kernel. Exit code 1 if a bound is
broken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from charlm import checkpoint
from tests.benchmarks.table import Table
from tests.faults.machine import machine
from tests.faults.same_bits import ROOT, Failure, chosen, finished

BOUND = 1e-5  # of a line's log probability, relative
TRAINED_BOUND = 1e-3  # of losses and weights after some steps, relative: rounding grows in training
TRAINED_LINES = 400
FIRST = "all there is"


@dataclass(frozen=True)
class Level:
    """A processor.

    Attributes:
        needs: features without which this machine cannot stand for it.
        cpu, features: as Numba's settings have them; None for the machine's own.
        numpy_without: groups of NumPy's functions that it lacks.
        blas: OpenBLAS's name of it.
        before: Python that runs before charlm does; its kernels are kept apart.
    """

    name: str
    needs: tuple[str, ...] = ()
    cpu: str | None = None
    features: str | None = None
    numpy_without: str = ""
    blas: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""

    def command(self) -> list[str]:
        if not self.before:
            return [sys.executable, "-m", "charlm"]
        return [sys.executable, "-c", f"{self.before}; import runpy; runpy.run_module('charlm', run_name='__main__')"]

    def variables(self) -> dict[str, str]:
        found = dict(self.environment)
        if self.cpu is not None and self.features is not None:
            found |= {"NUMBA_CPU_NAME": self.cpu, "NUMBA_CPU_FEATURES": self.features}
        if self.numpy_without:
            found["NPY_DISABLE_CPU_FEATURES"] = self.numpy_without
        return found | ({"OPENBLAS_CORETYPE": self.blas} if self.blas else {})


V2 = "+cx16,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2,+sahf"
# The sums of a machine with AVX-512, each vector as two of 256 bits: the same numbers, slowly.
HALVES = "from charlm.engine import jit; jit.VECTOR_BYTES, jit.VECTOR_REGISTERS = 64, 32"
V3 = f"{V2},+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
LEVELS = (
    Level(FIRST),
    Level("AVX2 and FMA", ("avx512f",), "x86-64-v3", V3, "X86_V4 AVX512_ICL AVX512_SPR", "Haswell"),
    Level("AVX2, no FMA", ("avx2",), "x86-64-v2", f"{V2},+avx,+avx2", "X86_V3", "Sandybridge"),
    Level("AVX, no AVX2, no FMA", ("avx",), "x86-64-v2", f"{V2},+avx", "X86_V3", "Sandybridge"),
    Level("SSE2 (generic x86-64)", ("sse2",), "x86-64", "", "X86_V3", "Prescott"),
    Level("512 bits in halves", ("avx2",), before=HALVES),
    Level("NUMBA_ENABLE_AVX=0", ("avx",), environment={"NUMBA_ENABLE_AVX": "0"}),
)


@dataclass(frozen=True)
class Case:
    """What is trained, on what, and the text that the model is used on."""

    name: str
    corpus: str
    options: tuple[str, ...]
    lines: int = 2000


SIZES = ("--hidden-size", "128", "--num-layers", "2")
CASES = (
    Case("char lstm", "dinosaurs.txt", ("--cell", "lstm", *SIZES)),
    Case("char rnn", "dinosaurs.txt", ("--cell", "rnn", *SIZES)),
    Case("char peephole", "dinosaurs.txt", ("--cell", "lstm-peephole", "--hidden-size", "70")),
    Case("word gru", "agreement.txt", ("--level", "word", "--cell", "gru", "--softmax", "adaptive", *SIZES)),
    Case("labels", "towns.tsv", ("--condition", "label", "--cell", "gru-simple")),
    Case("classify", "towns.tsv", ("--task", "classify", "--bidirectional")),
    Case("tag", "visits.conll", ("--task", "tag", "--bidirectional", "--cell", "gru")),
    Case("transduce", "sounds.tsv", ("--task", "transduce", "--attention", "--bidirectional")),
)


class Machine:
    """Runs commands on a level, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, level: Level, *arguments: str) -> bytes:
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | level.variables()
        if level.before:
            environment["CHARLM_CACHE_DIR"] = str(self.folder / "kernels")
        done = finished([*level.command(), *arguments], self.folder, environment)
        if done.returncode:
            raise Failure(f"{level.name}: charlm {' '.join(arguments)}: {done.stderr[-300:]!r}")
        return done.stdout

    def write_texts(self, case: Case) -> None:
        """``text`` to train on, ``short`` for a few steps, ``use`` to use a model on."""
        lines = (ROOT / "corpora" / case.corpus).read_text("utf-8").splitlines(keepends=True)
        (self.folder / "text").write_text("".join(lines), "utf-8")
        (self.folder / "short").write_text("".join(lines[:TRAINED_LINES]), "utf-8")
        # A classifier's text has no label, a transducer's no target.
        column = {"classify": -1, "labels": -1, "transduce": 0}.get(case.name)
        used = [line if column is None else line.rstrip("\n").split("\t")[column] + "\n" for line in lines]
        (self.folder / "use").write_text("".join(islice(used, case.lines)), "utf-8")

    def use(self, level: Level, case: Case, model: str) -> bytes:
        """What a model says of the text, as JSON."""
        more = {"labels": ("--label", "all"), "classify": ("--top", "99"), "transduce": ("--n-best", "2")}.get(
            case.name, ()
        )
        is_scored = case.name not in ("classify", "tag", "transduce")
        return self.run(level, "score" if is_scored else "predict", model, "use", "--json", *more)


def log_probs(output: bytes) -> list[tuple[Any, float]]:
    """What was found on each line, and its natural log probability (0 where none is told)."""
    found: list[tuple[Any, float]] = []
    for line in output.decode("utf-8").splitlines():
        value = json.loads(line)
        if "log_prob" in value:
            found.append((value.get("label"), value["log_prob"]))
        elif "labels" in value:
            found += [(one["label"], float(np.log(max(one["probability"], 1e-300)))) for one in value["labels"]]
        elif "targets" in value:
            found += [(one["target"], one["log_prob_nats"]) for one in value["targets"]]
        else:
            found.append((value["tags"], 0.0))
    return found


def worst(one: bytes, other: bytes) -> tuple[float, int, int]:
    """The largest relative difference of a log probability, how many answers are others, and how many there are."""
    first, second = log_probs(one), log_probs(other)
    if len(first) != len(second):
        raise Failure(f"{len(first)} lines, and then {len(second)}")
    # Near a probability of 1 the logarithm is a rounding error itself: nothing below 1 nat counts as less.
    gaps = [abs(a - b) / max(1.0, abs(a)) for (x, a), (y, b) in zip(first, second, strict=True) if x == y]
    return max(gaps, default=0.0), sum(x != y for (x, _), (y, _) in zip(first, second, strict=True)), len(first)


def train_a_little(at: Machine, level: Level, case: Case, model: str) -> tuple[list[float], dict[str, Any], str]:
    """Losses and weights after an epoch of the short text, and the vectors that it was done with."""
    at.run(
        level, "train", "short", "-o", model, *case.options, "--epochs", "1", "--log", f"{model}.jsonl", "--quiet",
        "--valid-frac", "0.1",
    )  # fmt: skip
    events = [json.loads(line) for line in (at.folder / f"{model}.jsonl").read_text().splitlines()]
    loaded = checkpoint.load(at.folder / model)
    host = loaded.header["sessions"][-1]["host"]
    vectors = f"{host['vector_bits']}{' FMA' if 'fma' in host['features'] else ''}"
    return [one["loss_nats"] for one in events if one["event"] == "step"], loaded.arrays, vectors


def apart(one: Any, other: Any) -> float:
    """|a - b| / |a|, of all numbers together."""
    a, b = (np.concatenate([np.ravel(part) for part in parts]).astype(np.float64) for parts in (one, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a)) if a.shape == b.shape else float("inf")


def available(levels: Sequence[Level]) -> list[Level]:
    from charlm.engine.jit import FEATURES

    return [level for level in levels if set(level.needs) <= FEATURES]


def check_case(case: Case, levels: Sequence[Level], epochs: int, table: Table) -> list[str]:
    """Print the rows of a case; what broke a bound."""
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        at, first = Machine(Path(folder)), levels[0]
        at.write_texts(case)
        at.run(first, "train", "text", "-o", "wide.npz", *case.options, "--epochs", str(epochs), "--quiet")
        reference = at.use(first, case, "wide.npz")
        losses, weights, _ = train_a_little(at, first, case, "short.npz")
        for number, level in enumerate(levels[1:]):
            gap, others, total = worst(reference, at.use(level, case, "wide.npz"))
            model = f"short{number}.npz"
            own_losses, own_weights, vectors = train_a_little(at, level, case, model)
            shapes = {name: array.shape for name, array in weights.items()}
            if shapes != {name: array.shape for name, array in own_weights.items()}:
                broken.append(f"{case.name}, {level.name}: other shapes in the model file")
                continue
            loss_gap, weight_gap = apart([losses], [own_losses]), apart(weights.values(), own_weights.values())
            back, _, _ = worst(at.use(first, case, model), at.use(level, case, model))
            cells = [f"{gap:.1e}", f"{others} of {total}", f"{loss_gap:.1e}", f"{weight_gap:.1e}", f"{back:.1e}"]
            print(table.line([case.name, level.name, vectors, *cells]), flush=True)
            if max(gap, back) > BOUND:
                broken.append(f"{case.name}, {level.name}: log probabilities differ by {max(gap, back):.1e}")
            if max(loss_gap, weight_gap) > TRAINED_BOUND:
                broken.append(f"{case.name}, {level.name}: after training {max(loss_gap, weight_gap):.1e}")
            if others > total / 1000:
                broken.append(f"{case.name}, {level.name}: {others} of {total} answers are others")
        if at.use(first, case, "wide.npz") != reference:
            broken.append(f"{case.name}: {first.name} gives other bits than before: a kernel of another level?")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="may be repeated")
    parser.add_argument(
        "--level", action="append", choices=[level.name for level in LEVELS[1:]], help="may be repeated"
    )
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="of the model that is scored (default: 4)")
    options = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    levels = [LEVELS[0], *available(chosen(LEVELS[1:], options.level))]
    missing = [level.name for level in chosen(LEVELS[1:], options.level) if level not in levels]
    if missing:
        print(f"this processor cannot stand for: {', '.join(missing)}\n")
    table = Table(
        ("model", 14), ("narrower", 22), ("bits", 7), ("log prob", 9), ("others", 12), ("loss", 9), ("weights", 9),
        ("back", 9),
    )  # fmt: skip
    print(table.head(), flush=True)
    broken: list[str] = []
    for case in chosen(CASES, options.case):
        try:
            broken += check_case(case, levels, options.epochs, table)
        except Failure as failure:
            broken.append(f"{case.name}: {failure}")
    print(f"\n{len(broken)} bounds broken")
    for line in broken:
        print(f"  {line}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
