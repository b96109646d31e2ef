"""The tasks on real texts: charlm beside a PyTorch network of the same size, trained alike.

    python tests/benchmarks/tasks.py DATA --peer-python PATH [--only names]

DATA is a folder with the texts that task_data.py names. For each work `charlm train` and tasks_peer.py train on the
same examples with the same sizes, rates and number of epochs; what is best on the validation part is judged on the test
part, by the same code. Two threads each, one after another. Works:

    names      nationality of a surname, a tenth of each held out: accuracy
    wnut17     entities in messages: F1 on the test file, as conlleval counts
    g2p-XXX    pronunciation in French, Georgian, Hindi, without and with attention: words wrong on the test file
    promoters  DNA, leave one out: errors of 106
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe
from peer_process import HOW_TO, Peer
from table import Table
from task_data import Part, labelled_ids, paired_ids, promoters, tagged_ids, write_names

from charlm.evaluation.edits import score_edits
from charlm.evaluation.entities import score_entities
from charlm.text.tagged import load_tagged
from charlm.text.tokenizer import Tokenizer
from charlm.workflows.predictors.labels import LabelPredictor
from charlm.workflows.train import run
from charlm.workflows.train_request import TrainRequest
from charlm.workflows.trained import load_trained

LANGUAGES = {"fre": "French", "geo": "Georgian", "hin": "Hindi"}
TABLE = Table(
    ("work", 24), ("figure", 12), ("charlm", 9), ("PyTorch", 9), ("charlm s", 9), ("PyTorch s", 9), ("parameters", 10)
)  # fmt: skip
FOLDS_EPOCHS = 12


@dataclass(frozen=True)
class Sizes:
    """What both are given."""

    hidden_size: int = 128
    embedding_size: int = 64
    batch_size: int = 32
    epochs: int = 10
    dropout: float = 0.3
    lr: float = 0.004
    bidirectional: bool = True
    attention: bool = False

    def flags(self, task: str) -> list[str]:
        """As `charlm train` takes them."""
        flags = []
        for name in ("hidden_size", "embedding_size", "batch_size", "epochs", "dropout", "lr"):
            flags += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        flags.append("--bidirectional" if self.bidirectional else "--no-bidirectional")
        return [*flags, *(["--attention"] if self.attention else []), "--task", task]

    def job(self, task: str, sizes: dict[str, int], parts: dict[str, Part]) -> dict[str, Any]:
        """As tasks_peer.py takes them."""
        return {
            "task": task, "seed": 0, "num_layers": 1, "char_hidden_size": 32, "char_embedding_size": 32,
            **{name: getattr(self, name) for name in self.__dataclass_fields__}, **sizes, **parts,
        }  # fmt: skip


def charlm(*arguments: object) -> str:
    """Run charlm; its standard output."""
    command = [sys.executable, "-m", "charlm", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return done.stdout


class Bench:
    """Runs works and prints a line for each."""

    def __init__(self, data: Path, out: Path, peer_python: str | None) -> None:
        self.data, self.out, self.peer_python = data, out, peer_python

    def ours(self, train: Path, valid: Path | None, test: Path, flags: list[str]) -> tuple[dict[str, Any], float, int]:
        """Figures of charlm, seconds of the training, parameters."""
        model = self.out / "model.npz"
        held = ["--valid", valid] if valid is not None else []
        begun = time.perf_counter()
        result = json.loads(charlm("train", train, *held, "-o", model, *flags, "--quiet", "--json"))
        seconds = time.perf_counter() - begun
        return json.loads(charlm("predict", model, test, "--evaluate", "--json")), seconds, result["parameters"]

    def theirs(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the peer answers."""
        paths = self.out / "job.json", self.out / "answer.json"
        paths[0].write_text(json.dumps(job))
        script = Path(__file__).with_name("tasks_peer.py")
        assert self.peer_python is not None
        subprocess.run([self.peer_python, "-B", str(script), *map(str, paths)], check=True)
        answer: dict[str, Any] = json.loads(paths[1].read_text())
        return answer

    def tell(self, work: str, figure: str, ours: str, seconds: float, parameters: int, peer: tuple[str, float]) -> None:
        theirs, peer_seconds = peer
        print(
            TABLE.line([work, figure, ours, theirs, f"{seconds:.0f}", f"{peer_seconds:.0f}", f"{parameters:,}"]),
            flush=True,
        )  # fmt: skip

    def names(self) -> None:
        sizes = Sizes(bidirectional=False)
        train, test = write_names(self.data / "names-by-nationality", self.out)
        figures, seconds, parameters = self.ours(train, test, test, sizes.flags("classify"))
        peer = ("", 0.0)
        if self.peer_python:
            ids, held, found = labelled_ids(train, test)
            answer = self.theirs(sizes.job("classify", found, {"train": ids, "valid": held, "test": held}))
            right = sum(label == gold for label, (_, gold) in zip(answer["found"], held, strict=True))
            peer = f"{right / len(held):.1%}", answer["seconds"]
        self.tell("names", "accuracy", f"{figures['accuracy']:.1%}", seconds, parameters, peer)

    def wnut17(self) -> None:
        folder = self.data / "wnut17"
        files = [folder / name for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")]
        sizes = Sizes(dropout=0.5)
        figures, seconds, parameters = self.ours(*files, sizes.flags("tag"))
        peer = ("", 0.0)
        if self.peer_python:
            (train, valid, test), found = tagged_ids(*files)
            answer = self.theirs(sizes.job("tag", found, {"train": train, "valid": valid, "test": test}))
            known, gold = (load_tagged([str(files[i])], Tokenizer("word"))[0] for i in (0, 2))
            names = known.labels.names
            made = [tuple(names[i] for i in tags) for tags in answer["found"]]
            scores = score_entities(zip([sentence.tags for sentence in gold.sentences], made, strict=True))
            peer = f"{scores.overall.f1:.1%}", answer["seconds"]
        entities = figures["entities"]["all"]
        self.tell(f"wnut17, {entities['there']:,}", "entity F1", f"{entities['f1']:.1%}", seconds, parameters, peer)

    def g2p(self) -> None:
        for language, name in LANGUAGES.items():
            files = [self.data / "g2p" / f"{language}_{part}.tsv" for part in ("train", "dev", "test")]
            for attention in (False, True):
                sizes = Sizes(batch_size=16, epochs=20, attention=attention)
                flags = [*sizes.flags("transduce"), "--target-level", "word"]
                figures, seconds, parameters = self.ours(*files, flags)
                peer = ("", 0.0)
                if self.peer_python:
                    (train, valid, test), found = paired_ids(*files)
                    answer = self.theirs(sizes.job("transduce", found, {"train": train, "valid": valid, "test": test}))
                    pairs = zip(answer["found"], [target[:-1] for _, target in test], strict=True)
                    peer = f"{score_edits(pairs).sequence_error_rate:.1%}", answer["seconds"]
                work = f"{name}{', attention' if attention else ''}"
                wrong = f"{1 - figures['sequence_accuracy']:.1%}"
                self.tell(work, "words wrong", wrong, seconds, parameters, peer)

    def promoters(self) -> None:
        lines = promoters(self.data / "promoters.data")
        sizes = Sizes(hidden_size=32, embedding_size=8, batch_size=8, epochs=FOLDS_EPOCHS)
        values = {name: getattr(sizes, name) for name in sizes.__dataclass_fields__ if name != "attention"}
        train, model = self.out / "train.tsv", str(self.out / "model.npz")
        request = TrainRequest([str(train)], model, task="classify", valid_frac=0.0, threads=2, **values)
        begun, errors, parameters = time.perf_counter(), 0, 0
        for i, line in enumerate(lines):
            train.write_text("".join(lines[:i] + lines[i + 1 :]))
            parameters = run(request, Silent()).parameters
            label, text = line.rstrip().split("\t")
            predictor = LabelPredictor(load_trained(model, 2))
            names = predictor.header["labels"]
            errors += names[int(predictor.probabilities([text]).argmax())] != label
        seconds, peer = time.perf_counter() - begun, ("", 0.0)
        if self.peer_python:
            train.write_text("".join(lines))
            ids, _, found = labelled_ids(train, train)
            job = sizes.job("classify", found, {"train": ids, "valid": [], "test": ids})
            answer = self.theirs(job | {"folds": True})
            wrong = sum(label != gold for label, (_, gold) in zip(answer["found"], ids, strict=True))
            peer = f"{wrong}", answer["seconds"]
        self.tell(f"promoters, {len(lines)}", "errors", f"{errors}", seconds, parameters, peer)


class Silent:
    """An observer of a training that tells nothing."""

    def message(self, text: str) -> None: ...

    def begin(self, plan: Any, trainer: Any) -> None: ...

    def step(self, event: Any, trainer: Any) -> None: ...

    def validated(self, event: Any, trainer: Any, glimpse: str, *, is_saved: bool) -> None: ...

    def stop_requested(self) -> None: ...


WORKS = ("names", "wnut17", "g2p", "promoters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer-python", help=HOW_TO)
    parser.add_argument("--only", choices=WORKS, action="append")
    given = parser.parse_args()
    peer = Peer(given.peer_python) if given.peer_python else None
    print(describe(peer))
    if peer is not None:
        peer.close()
    print(f"\n{TABLE.head()}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.data, Path(folder), given.peer_python)
        for work in given.only or WORKS:
            getattr(bench, work)()


if __name__ == "__main__":
    main()
