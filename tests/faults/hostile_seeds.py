"""Good files for `hostile_files` to damage: a tiny model of every task, a training state beside each, a token file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charlm.cli.main import main
from charlm.training.loop import StepDone, Trainer, Validated
from charlm.workflows import train
from charlm.workflows.tokenize import TextOptions
from charlm.workflows.train_plan import Plan
from charlm.workflows.train_request import TrainRequest, resume_path

# No "n": nothing that a model writes can be read as nan or inf.
WORDS = ("abba", "bad", "cab", "dab", "egg", "face", "gab", "head", "deaf", "bed", "ace", "hag", "had", "age", "cafe")
LABELS = ("Aa", "Bb", "Cc")
TAGS = ("O", "B-x", "I-x")
LINES = 48
SIZES = {"hidden_size": 8, "embedding_size": 8, "batch_size": 4, "epochs": 1, "seed": 1, "threads": 1}
STEPS_BEFORE_STOP = 3


@dataclass(frozen=True)
class Seed:
    """A good file.

    Attributes:
        kind: "model", "state" or "tokens".
        task: of a model or a state.
        path: the file.
        corpus: what it was made of. text: what to read with it: no answers, no labels.
        conditioned: whether the model is given a label.
    """

    name: str
    kind: str
    task: str
    path: Path
    corpus: Path
    text: Path
    conditioned: bool = False


class _Stop:
    """An observer that says nothing, and asks for a stop after a few steps."""

    def __init__(self) -> None:
        self._left = STEPS_BEFORE_STOP

    def message(self, text: str) -> None:
        pass

    def begin(self, plan: Plan, trainer: Trainer) -> None:
        pass

    def step(self, event: StepDone, trainer: Trainer) -> None:
        self._left -= 1

    def validated(self, event: Validated, trainer: Trainer, glimpse: str, *, is_saved: bool) -> None:
        pass

    def stop_requested(self) -> str | None:
        return "stopped" if self._left <= 0 else None


def _corpora(folder: Path) -> dict[str, Path]:
    draw = random.Random(1)

    def words(most: int) -> list[str]:
        return draw.choices(WORDS, k=draw.randint(1, most))

    texts = {
        "text": [" ".join(words(5)) for _ in range(LINES)],
        "labels": [f"{draw.choice(LABELS)}\t{draw.choice(WORDS)}" for _ in range(LINES)],
        "pairs": [f"{word}\t{' '.join(word.upper())}" for word in words(1) * 8 + draw.choices(WORDS, k=LINES)],
        "plain": [draw.choice(WORDS) for _ in range(6)],
        "tags": ["\n".join([*(f"{word} {draw.choice(TAGS)}" for word in words(5)), ""]) for _ in range(LINES)],
        "sentences": ["\n".join([*words(4), ""]) for _ in range(4)],
    }
    for name, lines in texts.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return {name: folder / f"{name}.txt" for name in texts}


def make_seeds(folder: Path) -> list[Seed]:
    """Train them all, in this process; a few seconds once kernels are compiled."""
    corpora = _corpora(folder)
    words = TextOptions(level="word", min_count=1)
    tasks: Sequence[tuple[str, str, str, dict[str, object]]] = (
        ("chars", "text", "text", {"cell": "lstm", "bptt": 8}),
        ("words", "text", "text", {"cell": "gru", "bptt": 8, "softmax": "adaptive", "num_layers": 2, "text": words}),
        ("tied", "text", "text", {
            "cell": "rnn", "activation": "relu", "bptt": 8, "tie_weights": True, "text": TextOptions(sequence="file"),
        }),
        ("labels", "labels", "plain", {"cell": "gru", "bptt": 8, "condition": "label"}),
        ("bytes", "text", "text", {"cell": "rnn", "bptt": 8, "text": TextOptions(level="byte")}),
        ("classify", "labels", "plain", {"task": "classify", "bidirectional": True}),
        ("tag", "tags", "sentences", {"task": "tag"}),
        ("transduce", "pairs", "plain", {"task": "transduce", "attention": True, "target_level": "word"}),
    )  # fmt: skip
    seeds = []
    for name, corpus, text, options in tasks:
        task, conditioned = str(options.get("task", "lm")), "condition" in options
        common = corpora[corpus], corpora[text], conditioned
        for kind, observer in (("model", _Never()), ("state", _Stop())):
            output = folder / f"{name}-{kind}.npz"
            train.run(TrainRequest([str(corpora[corpus])], str(output), **(SIZES | options)), observer)  # type: ignore[arg-type]
            path = Path(resume_path(str(output))) if kind == "state" else output
            seeds.append(Seed(f"{name} {kind}", kind, task, path, *common))
    tokens = folder / "text.tokens"
    main(["tokenize", str(corpora["text"]), "-o", str(tokens)], standalone_mode=False)
    seeds.append(Seed("tokens", "tokens", "lm", tokens, corpora["text"], corpora["text"]))
    return seeds


class _Never(_Stop):
    """An observer that says nothing."""

    def stop_requested(self) -> str | None:
        return None
