"""Sizes and rates that suit a corpus, each with its reason.

Found by trying on corpora of each size: names, plays, scripture, poems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VALID_FRACTION, VALID_FRACTION_LARGE, LARGE_BYTES = 0.1, 0.02, 20_000_000
ENOUGH_BYTES = 2_000_000  # to validate on: 2 % of a gigabyte would take longer than 2000 steps of training
VALIDATIONS = 20  # in the course of a training, at the most
# Steps. An epoch of tiny-shakespeare ends at 1.73 nats with 60 and 32 rows, 1.81 with 60 and 50, 1.86 with 200 and 50.
LONGEST_WARMUP = 60
SHORTEST_INTERVAL, LONGEST_INTERVAL = 100, 2000  # steps between them, unless an epoch is shorter; if no end is known
PATIENCE = 6


@dataclass(frozen=True)
class _Size:
    """What suits corpora of up to ``tokens`` tokens."""

    tokens: float
    what: str
    hidden_size: int
    num_layers: int
    batch_size: int
    bptt: int
    epochs: int
    dropout: float


# What does not depend on the text: the help of `charlm train` names these.
FIXED = {
    "cell": "lstm",
    "activation": "tanh",
    "tie_weights": False,
    "softmax": "full",
    "optimizer": "adamw",
    "schedule": "cosine",
    "clip": 1.0,
    "clip_mode": "norm",
    "weight_decay": 0.0,
    "variational": False,
    "initial_state": "zeros",
    "seed": 0,
}

MIDDLING_TOKENS = 500_000
SIZES = (
    _Size(60_000, "a small corpus", 128, 1, 16, 32, 40, 0.3),
    _Size(MIDDLING_TOKENS, "a middling corpus", 128, 1, 32, 32, 20, 0.1),
    _Size(5_000_000, "a large corpus", 256, 2, 32, 64, 10, 0.1),
    _Size(float("inf"), "a very large corpus", 512, 2, 64, 100, 3, 0.0),
)


def valid_fraction(text_bytes: int) -> tuple[float, str]:
    """How much of a text to hold out, and why."""
    if text_bytes * VALID_FRACTION_LARGE > ENOUGH_BYTES:
        return max(round(ENOUGH_BYTES / text_bytes, 6), 1e-6), "two megabytes tell enough"
    if text_bytes > LARGE_BYTES:
        return VALID_FRACTION_LARGE, "2 % of a large text tell enough"
    return VALID_FRACTION, "a tenth held out"


def choose(tokens: int, vocabulary_size: int, level: str) -> dict[str, tuple[Any, str]]:
    """Option -> value and reason, for a training text of so many tokens."""
    size = next(s for s in SIZES if tokens <= s.tokens)
    count = f"{tokens:,} tokens"
    word, many = level == "word", vocabulary_size > 1000
    hidden = max(256, size.hidden_size) if many else size.hidden_size
    embedding = hidden if many or word else min(hidden, 64)
    return {
        "hidden_size": (hidden, "many symbols" if hidden > size.hidden_size else f"{size.what}, {count}"),
        "num_layers": (size.num_layers, size.what),
        "embedding_size": (embedding, "as the hidden size" if many or word else "enough for few symbols"),
        "bptt": (size.bptt, size.what),
        "batch_size": (size.batch_size, size.what),
        "dropout": _dropout(size, many),
        "epochs": (size.epochs, size.what),
        "patience": (PATIENCE, "validations without a better model"),
    }


def _dropout(size: _Size, many: bool) -> tuple[float, str]:
    """Many symbols, each seen seldom, are soon learnt by heart: the sooner, the shorter the text."""
    if not many:
        return size.dropout, size.what
    return (0.5 if size.tokens <= MIDDLING_TOKENS else 0.3), "many symbols, each seen seldom"


def learning_rate(optimizer: str, hidden_size: int) -> tuple[float, str]:
    """A rate that suits the optimiser and the model's size."""
    if optimizer == "sgd":
        return 0.5, "for SGD with momentum"
    return (0.004, "layers of up to 256") if hidden_size <= 256 else (0.002, "layers wider than 256")


def warmup_steps(total_steps: int | None) -> int:
    """A twentieth of the training, ``LONGEST_WARMUP`` steps at the most."""
    return LONGEST_WARMUP if total_steps is None else min(LONGEST_WARMUP, total_steps // 20)


def valid_interval(steps_per_epoch: int, total_steps: int | None) -> int:
    """Steps between validations: ``VALIDATIONS`` in a training, but neither too many nor too few of them."""
    if total_steps is None:
        return min(steps_per_epoch, LONGEST_INTERVAL)
    least = max(1, total_steps // VALIDATIONS, min(steps_per_epoch, SHORTEST_INTERVAL))
    if least >= steps_per_epoch:
        return least
    return -(-steps_per_epoch // (steps_per_epoch // least))  # so that the last of an epoch ends it


@dataclass(frozen=True)
class _Whole:
    """What suits up to ``examples`` examples of whole sequences."""

    examples: float
    what: str
    batch_size: int
    epochs: int
    dropout: float


BIDIRECTIONAL_WHY = {
    "classify": "the last state has seen all",
    "tag": "what follows a token tells of it too",
    "transduce": "what follows a token tells of it too",
}
WHOLE = (
    _Whole(1_000, "few examples", 8, 40, 0.3),
    _Whole(5_000, "some examples", 16, 30, 0.3),
    _Whole(float("inf"), "many examples", 32, 10, 0.3),
)


def choose_whole(examples: int, vocabulary_size: int, task: str) -> dict[str, tuple[Any, str]]:
    """Option -> value and reason, for networks that read whole sequences: so many texts, sentences or pairs."""
    size = next(s for s in WHOLE if examples <= s.examples)
    count = f"{size.what}, {examples:,}"
    many = vocabulary_size > 1000
    chosen: dict[str, tuple[Any, str]] = {
        "hidden_size": (128, count),
        "num_layers": (1, count),
        "embedding_size": (128 if many else 64, "many symbols" if many else "enough for few symbols"),
        "batch_size": (size.batch_size, size.what),
        "dropout": (size.dropout, size.what),
        "epochs": (size.epochs, size.what),
        "patience": (PATIENCE, "validations without a better model"),
        "bidirectional": (task != "classify", BIDIRECTIONAL_WHY[task]),
    }
    if task == "tag":
        chosen["char_features"] = (True, "words never seen have characters too")
    if task == "transduce":
        chosen["attention"] = (False, "the last states tell all")
    return chosen
