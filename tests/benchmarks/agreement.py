"""Agreement at a distance: does a cell carry the number of "the cat" or "the cats" over a clause to "was" or "were"?

    python tests/benchmarks/agreement.py [-o FOLDER]
    python tests/benchmarks/agreement.py --seeds 1 --quick

Four cells of about equally many parameters learn sentences of the grammar of corpora/agreement.txt with `charlm train`,
and are asked for the verb of new ones: right if P(was) > P(were) after one animal, P(were) > P(was) after several. A
distance is the number of words between the noun and its verb: "the cats , which saw the duck near the dog , were" has
ten. Other nouns of either number stand there, each number half of the time.

    mixed   the corpus as it is: a quarter of the sentences has no clause, and half of the clauses are short
    only    for each of --places, a text in which every clause has so many places: no short ones to learn from

Each training is repeated with other --seeds. Every result is a line of agreement.tsv; agreement-mixed.svg shows
accuracy against the distance asked for, agreement-only.svg against the distance trained on, and agreement-gradients.svg
what `charlm gradients` finds in the first seed's models of the mixed text.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

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

CELLS = ("rnn", "gru-simple", "gru", "lstm")
EMBEDDING_SIZE = 32
WIDEST = 1000  # hidden units that are tried
TRAIN_FLAGS = ("--level", "word", "--embedding-size", str(EMBEDDING_SIZE), "--bptt", "64", "--quiet", "--json")
MIXED_EPOCHS, ONLY_EPOCHS = 20, 60
ONLY_SENTENCES, ASKED_SENTENCES = 5_000, 500  # to learn from; to be asked about, for each distance
ASKED_PLACES = (None, 0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 24)  # None: no clause
TEXT_SEED, ASKED_SEED = 7, 1_000_000


@dataclass(frozen=True)
class Result:
    """A model's verbs at one distance: a line of the TSV."""

    text: str  # mixed, or only
    trained_words: int  # between noun and verb in the training text; 0 for mixed
    cell: str
    hidden_size: int
    parameters: int
    seed: int
    valid_nats: float
    seconds: float
    asked_words: int
    accuracy: float


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
    import numpy as np

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


def results(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """All trainings, one after another; a result for each distance asked for."""
    vocabulary_size = len({*CORPUS.read_text("ascii").split(), *SPECIAL})
    jobs: list[tuple[str, int | None, Path, int, tuple[int | None, ...]]] = []
    jobs.append(("mixed", None, CORPUS, MIXED_EPOCHS, ASKED_PLACES))
    for places in options.places:
        text = folder / f"only{places}.txt"
        write_only(text, places)
        jobs.append(("only", places, text, ONLY_EPOCHS, (places,)))
    for name, places, text, epochs, asked in jobs:
        for seed in range(options.seeds):
            for cell in CELLS:
                size = hidden_size(cell, options.parameters, vocabulary_size)
                output = folder / model_name(name, places, cell, seed)
                done = train(text, output, cell, size, 1 if options.quick else epochs, seed)
                for one in asked:
                    yield Result(
                        name, words_between(places), cell, size, int(done["parameters"]), seed,
                        round(done["best_valid_nats"], 5), done["seconds"], words_between(one), accuracy(output, one),
                    )  # fmt: skip


def model_name(text: str, places: int | None, cell: str, seed: int) -> str:
    return f"{text}{'' if places is None else places}-{cell}-{seed}.npz"


def tables(found: Sequence[Result]) -> Iterator[str]:
    """Accuracies in per cent: the mean over the seeds, and the least if it is another."""
    for text, distance in (("mixed", "asked_words"), ("only", "trained_words")):
        here = [result for result in found if result.text == text]
        distances = sorted({getattr(result, distance) for result in here})
        heads = (("hidden", 6), ("parameters", 10), ("nats/word", 9), *((f"{words}", 9) for words in distances))
        if text == "only":
            heads = (*heads[:2], *heads[3:])  # of several texts
        table = Table((f"{text}: words between", 19), *heads)
        yield f"\n{table.head()}"
        for cell in CELLS:
            own = [result for result in here if result.cell == cell]
            if not own:
                continue
            cells = [f"{own[0].hidden_size}", f"{own[0].parameters:,}"]
            if text == "mixed":
                cells.append(f"{statistics.mean(result.valid_nats for result in own):.4f}")
            for words in distances:
                values = [100 * result.accuracy for result in own if getattr(result, distance) == words]
                least = f" ({min(values):.0f})" if round(min(values)) != round(statistics.mean(values)) else ""
                cells.append(f"{statistics.mean(values):.0f}{least}")
            yield table.line([cell, *cells])


def picture(found: Sequence[Result], text: str, distance: str, title: str, across: str) -> str:
    """Mean accuracy of each cell against one of the two distances."""
    curves: Mapping[str, list[tuple[float, float]]] = {cell: [] for cell in CELLS}
    here = [result for result in found if result.text == text]
    distances = sorted({getattr(result, distance) for result in here})
    for cell, curve in curves.items():
        for words in distances:
            values = [r.accuracy for r in here if r.cell == cell and getattr(r, distance) == words]
            if values:
                curve.append((words, 100 * statistics.mean(values)))
    axis = Axis(across, 0, max(1, *distances))
    return svg(curves, axis, Axis("right verbs, per cent (50: a guess)", 40, 100), title)


def gradients_picture(folder: Path, output: Path) -> None:
    """What the first seed's models of the mixed text pass back, by `charlm gradients`."""
    models = []
    for cell in CELLS:  # the curve's name is the file's
        model = folder / f"{cell}.npz"
        os.replace(folder / model_name("mixed", None, cell, 0), model)
        models.append(str(model))
    command = [sys.executable, "-m", "charlm", "gradients", *models, str(CORPUS), "-o", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, encoding="utf-8")
    print(f"\n{done.stdout}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=20_000, metavar="N", help="of each model; default 20,000")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each; default 3")
    parser.add_argument("--places", type=int, nargs="*", default=[1, 2, 4, 6], metavar="N", help="default 1 2 4 6")
    parser.add_argument("-o", "--output", default=".", metavar="FOLDER", help="where to write; default: here")
    parser.add_argument("--quick", action="store_true", help="one epoch each: no figure to quote")
    options = parser.parse_args()
    output = Path(options.output)
    print(describe(None), flush=True)
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as name, open(output / "agreement.tsv", "w", encoding="utf-8") as tsv:
        folder = Path(name)
        print(*(field.name for field in fields(Result)), sep="\t", file=tsv, flush=True)
        for result in results(options, folder):
            found.append(result)
            print(*astuple(result), sep="\t", file=tsv, flush=True)
        print(*tables(found), sep="\n")
        gradients_picture(folder, output / "agreement-gradients.svg")
    for text, distance, title, across in (
        ("mixed", "asked_words", "was or were? Trained on corpora/agreement.txt", "words between noun and verb"),
        (
            "only",
            "trained_words",
            "was or were? Trained on clauses of one length",
            "words between noun and verb, in both",
        ),
    ):
        if any(result.text == text for result in found):
            path = output / f"agreement-{text}.svg"
            path.write_text(picture(found, text, distance, title, across), encoding="utf-8")


if __name__ == "__main__":
    main()
