"""Agreement at a distance: does a cell carry the number of "the cat" or "the cats" over a clause to "was" or "were"?

    python tests/benchmarks/agreement.py [-o FOLDER]
    python tests/benchmarks/agreement.py --parts mixed --seeds 1
    python tests/benchmarks/agreement.py --draw

Four cells of about equally many parameters learn sentences of the grammar of corpora/agreement.txt with `charlm train`,
and are asked for the verb of new ones: right if P(was) > P(were) after one animal, P(were) > P(was) after several. A
distance is the number of words between the noun and its verb: "the cats , which saw the duck near the dog , were" has
ten. Other nouns of either number stand there, each number half of the time.

    mixed   the corpus as it is: a quarter of the sentences has no clause, and half of the clauses are short
    soon    the same for fewer epochs, each of --epochs
    only    for each of --places, a text in which every clause has so many places: no short ones to learn from

Each training is repeated with other --seeds. Every result is a line of agreement.tsv. Pictures: agreement-mixed.svg
has accuracy against the distance asked for, agreement-soon.svg against the epochs (at the distance of two places),
agreement-only.svg against the distance trained on, and agreement-gradients.svg what `charlm gradients` finds in the
first seed's models of the mixed text. ``--draw`` runs nothing and shows agreement.tsv again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from machine import describe  # first: it makes charlm the one of this tree
from table import Table

from charlm.evaluation.chart import Axis, svg
from charlm.models.language_model import LanguageModelConfig
from charlm.models.parameters import Parameters
from charlm.text.vocabulary import SPECIAL
from charlm.workflows.model_files import load_model

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "corpora" / "agreement.txt"
sys.path.insert(0, str(CORPUS.parent))
from make_agreement import generate  # noqa: E402 -- the folder is no package

PARTS = ("mixed", "soon", "only")
CELLS = ("rnn", "gru-simple", "gru", "lstm")
EMBEDDING_SIZE = 32
WIDEST = 1000  # hidden units that are tried
TRAIN_FLAGS = ("--level", "word", "--embedding-size", str(EMBEDDING_SIZE), "--bptt", "64", "--quiet", "--json")
MIXED_EPOCHS, ONLY_EPOCHS = 20, 60
ONLY_SENTENCES, ASKED_SENTENCES = 5_000, 500  # to learn from; to be asked about, for each distance
SOON_PLACES = (2,)
ASKED_PLACES = (None, 0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 24)  # None: no clause
TEXT_SEED, ASKED_SEED = 7, 1_000_000


@dataclass(frozen=True)
class Result:
    """A model's verbs at one distance: a line of the TSV."""

    part: str  # mixed, soon or only
    epochs: int
    trained_words: int  # between noun and verb in the training text; 0 where it is of any distance
    cell: str
    hidden_size: int
    parameters: int
    seed: int
    valid_nats: float
    seconds: float
    asked_words: int
    accuracy: float

    @classmethod
    def of_line(cls, line: str) -> Result:
        words = zip(line.split("\t"), fields(cls), strict=True)
        return cls(*({"str": str, "int": int, "float": float}[str(field.type)](word) for word, field in words))


def words_between(places: int | None) -> int:
    """Words between a noun and its verb: `, which VERB the NOUN ,` and three more for each place."""
    return 0 if places is None else 6 + 3 * places


def beginning(rng: random.Random, places: int | None) -> tuple[list[str], bool]:
    """A sentence up to its verb, and whether the verb is `were`."""
    is_plural = rng.random() < 0.5
    words = ["the", *generate(rng, "PLURAL" if is_plural else "SINGULAR")]
    if places is not None:
        words += [",", "which", *generate(rng, "VERB"), *generate(rng, "NOUN")]
        for _ in range(places):
            words += [*generate(rng, "PLACE"), *generate(rng, "NOUN")]
        words.append(",")
    return words, is_plural


def write_only(path: Path, places: int) -> None:
    """A text of clauses of one length."""
    rng = random.Random(TEXT_SEED)
    with open(path, "w", encoding="ascii") as file:
        for _ in range(ONLY_SENTENCES):
            words, is_plural = beginning(rng, places)
            print(*words, "were" if is_plural else "was", *generate(rng, "ADJECTIVE"), file=file)


def hidden_size(cell: str, parameters: int, vocabulary_size: int) -> int:
    """The size with which a cell has about so many parameters."""

    def miss(size: int) -> int:
        config = LanguageModelConfig(vocabulary_size, EMBEDDING_SIZE, size, 1, cell)
        return abs(Parameters(config.shapes()).count - parameters)

    sizes = range(1, WIDEST)
    return min(sizes, key=miss)


def accuracy(path: Path, places: int | None) -> float:
    """Of the model's verbs in new sentences of one length."""
    loaded = load_model(path, 1)
    model, vocabulary = loaded.model, loaded.vocabulary
    rng = random.Random(ASKED_SEED + words_between(places))
    asked = [beginning(rng, places) for _ in range(ASKED_SENTENCES)]
    ids = np.array([vocabulary.ids(words) for words, _ in asked])  # (N, T)
    first = np.full((len(asked), 1), vocabulary.start_id, ids.dtype)
    state = model.zero_state(len(asked))
    for tokens in np.concatenate([first, ids], axis=1).T:
        state, log_probs = model.step(state, np.ascontiguousarray(tokens))
    was, were = vocabulary.ids(["was", "were"])
    right = (log_probs[:, were] > log_probs[:, was]) == np.array([is_plural for _, is_plural in asked])
    return float(right.mean())


def train(text: Path, output: Path, cell: str, size: int, epochs: int, seed: int) -> dict[str, float]:
    """Run `charlm train`; its closing JSON."""
    command = [sys.executable, "-m", "charlm", "train", str(text), *TRAIN_FLAGS, "--cell", cell, "-o", str(output)]
    command += ["--hidden-size", str(size), "--epochs", str(epochs), "--seed", str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


@dataclass(frozen=True)
class Job:
    """A training that is repeated for each cell and seed."""

    part: str
    places: int | None  # of each clause of the training text; None for the corpus
    epochs: int
    asked: tuple[int | None, ...]

    def model(self, cell: str, seed: int) -> str:
        return f"{self.part}-{self.epochs}-{self.places}-{cell}-{seed}.npz"


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    if "mixed" in options.parts:
        yield Job("mixed", None, MIXED_EPOCHS, ASKED_PLACES)
    if "soon" in options.parts:
        for epochs in options.epochs:
            yield Job("soon", None, epochs, SOON_PLACES)
    if "only" in options.parts:
        for places in options.places:
            yield Job("only", places, ONLY_EPOCHS, (places,))


def results(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """All trainings, one after another; a result for each distance asked for."""
    vocabulary_size = len({*CORPUS.read_text("ascii").split(), *SPECIAL})
    for job in jobs(options):
        text, trained_words = CORPUS, 0
        if job.places is not None:
            text, trained_words = folder / f"only{job.places}.txt", words_between(job.places)
            write_only(text, job.places)
        epochs = 1 if options.quick else job.epochs
        for seed in range(options.seeds):
            for cell in CELLS:
                size = hidden_size(cell, options.parameters, vocabulary_size)
                output = folder / job.model(cell, seed)
                done = train(text, output, cell, size, epochs, seed)
                for one in job.asked:
                    yield Result(
                        job.part, job.epochs, trained_words, cell, size, int(done["parameters"]), seed,
                        round(done["best_valid_nats"], 5), done["seconds"], words_between(one), accuracy(output, one),
                    )  # fmt: skip


@dataclass(frozen=True)
class View:
    """How the results of a part are shown: against which of their fields."""

    part: str
    against: str
    title: str
    across: str

    def means(self, found: Sequence[Result], cell: str) -> dict[int, tuple[float, float]]:
        """Of that field's values, the mean accuracy over the seeds in per cent, and the least."""
        own = [result for result in found if (result.part, result.cell) == (self.part, cell)]
        result: dict[int, tuple[float, float]] = {}
        for value in sorted({getattr(one, self.against) for one in own}):
            accuracies = [100 * one.accuracy for one in own if getattr(one, self.against) == value]
            result[value] = statistics.mean(accuracies), min(accuracies)
        return result


VIEWS = (
    View("mixed", "asked_words", "was or were? Trained on corpora/agreement.txt", "words between noun and verb"),
    View("soon", "epochs", "was or were, 12 words after its noun?", "epochs of training on corpora/agreement.txt"),
    View("only", "trained_words", "was or were? All clauses of one length", "words between noun and verb"),
)


def table(found: Sequence[Result], view: View) -> Iterator[str]:
    """Accuracies in per cent: the mean over the seeds, and in brackets the least if it is another."""
    means = {cell: view.means(found, cell) for cell in CELLS}
    values = sorted({value for own in means.values() for value in own})
    shown = Table((f"{view.part}: {view.against}", 22), ("hidden", 6), *((f"{value}", 8) for value in values))
    yield f"\n{shown.head()}"
    for cell, own in means.items():
        size = next((str(result.hidden_size) for result in found if result.cell == cell), "")
        cells = []
        for value in values:
            mean, least = (f"{number:.0f}" for number in own.get(value, (float("nan"),) * 2))
            cells.append(mean if mean == least else f"{mean} ({least})")
        yield shown.line([cell, size, *cells])


def picture(found: Sequence[Result], view: View) -> str:
    """Mean accuracy of each cell."""
    means = {cell: view.means(found, cell) for cell in CELLS}
    curves = {cell: [(float(value), mean) for value, (mean, _) in own.items()] for cell, own in means.items()}
    axis = Axis(view.across, 0, max(1, *(x for curve in curves.values() for x, _ in curve)))
    return svg(curves, axis, Axis("right verbs, per cent (50: a guess)", 40, 100), view.title)


def gradients_picture(folder: Path, output: Path) -> None:
    """What the first seed's models of the mixed text pass back, by `charlm gradients`."""
    models = []
    for cell in CELLS:  # the curve's name is the file's
        model = folder / f"{cell}.npz"
        os.replace(folder / Job("mixed", None, MIXED_EPOCHS, ()).model(cell, 0), model)
        models.append(str(model))
    command = [sys.executable, "-m", "charlm", "gradients", *models, str(CORPUS.relative_to(ROOT))]
    command += ["-o", str(output.resolve())]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, encoding="utf-8")
    print(f"\n{done.stdout}")


def measure(options: argparse.Namespace, tsv_path: Path) -> list[Result]:
    """Run all that was asked for; each result is written at once."""
    found = []
    with tempfile.TemporaryDirectory() as name, open(tsv_path, "w", encoding="utf-8") as tsv:
        print(*(field.name for field in fields(Result)), sep="\t", file=tsv, flush=True)
        for result in results(options, Path(name)):
            found.append(result)
            print(*astuple(result), sep="\t", file=tsv, flush=True)
        if "mixed" in options.parts:
            gradients_picture(Path(name), tsv_path.with_name("agreement-gradients.svg"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all three")
    parser.add_argument("--parameters", type=int, default=20_000, metavar="N", help="of each model; default 20,000")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each; default 3")
    parser.add_argument("--epochs", type=int, nargs="+", default=[3, 5, 7, 10], metavar="N", help="default 3 5 7 10")
    parser.add_argument("--places", type=int, nargs="+", default=[1, 2, 4, 6], metavar="N", help="default 1 2 4 6")
    parser.add_argument("-o", "--output", default=".", metavar="FOLDER", help="where to write; default: here")
    parser.add_argument("--draw", action="store_true", help="run nothing: show what agreement.tsv there holds")
    parser.add_argument("--quick", action="store_true", help="one epoch each: no figure to quote")
    options = parser.parse_args()
    output = Path(options.output)
    tsv_path = output / "agreement.tsv"
    if options.draw:
        found = [Result.of_line(line) for line in tsv_path.read_text("utf-8").splitlines()[1:]]
    else:
        print(describe(None), flush=True)
        found = measure(options, tsv_path)
    for view in VIEWS:
        if any(result.part == view.part for result in found):
            print(*table(found, view), sep="\n")
            (output / f"agreement-{view.part}.svg").write_text(picture(found, view), encoding="utf-8")


if __name__ == "__main__":
    main()
