"""What the readers of all tasks share: options, what a resumed training began with, and the part held out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from charlm import checkpoint
from charlm.errors import InputError, UsageError
from charlm.text import token_file
from charlm.text.inputs import Inputs
from charlm.text.labels import Labels
from charlm.text.readers import STDIN
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import Vocabulary
from charlm.training import defaults
from charlm.workflows.text_side import saved_labels, text_record, text_side
from charlm.workflows.tokenize import TextOptions
from charlm.workflows.train_request import Chosen, TrainRequest, changed, refuse_others, resume_path
from charlm.workflows.trained import Trained


class CorpusLike(Protocol):
    """What a text of any kind is known by."""

    @property
    def sha256(self) -> str:
        """Of the inputs' bytes, in hexadecimal."""

    @property
    def inputs(self) -> Inputs:
        """What was read."""

    @property
    def names(self) -> list[str]:
        """The inputs, as the user named them."""

    @property
    def size(self) -> int:
        """How much there is to predict, or to read."""

    @property
    def counts(self) -> Any:
        """What was counted in it."""


C = TypeVar("C", bound=CorpusLike)

MOSTLY_UNKNOWN = 0.5  # of all tokens: then something is wrong


class Reading:
    """One training's texts, on their way to a `Material`.

    Args:
        saved: the state to go on from, if any.
        origin: the model whose weights and vocabulary to begin with, if any.

    Attributes:
        chosen: the options that were chosen for the user, each with its reason.
        remarks: what the user should know besides.
        text_record: limits of the vocabulary and the fraction held out, for resuming.
    """

    def __init__(self, request: TrainRequest, saved: checkpoint.Checkpoint | None, origin: Trained | None) -> None:
        self.request, self.saved, self.origin = request, saved, origin
        self.chosen: Chosen = {}
        self.remarks: list[str] = []
        self.text_record: dict[str, Any] = {}

    @property
    def _path(self) -> str:
        return resume_path(self.request.output)

    @property
    def is_new(self) -> bool:
        """Whether nothing brings its own vocabulary."""
        return self.saved is None and self.origin is None

    @property
    def seed(self) -> int:
        """Of what is drawn at random, the lines held out among it: as the training began, if it is resumed."""
        if self.saved is None:
            return self.request.seed or 0
        return checkpoint.require(
            checkpoint.require(self.saved.header, "training", dict, self._path), "seed", int, self._path
        )

    def known_header(self) -> tuple[dict[str, Any], str] | None:
        """The header that brings vocabularies and labels, and its file; None if the text is to give them."""
        if self.saved is not None:
            return self.saved.header, self._path
        return None if self.origin is None else (self.origin.header, self.origin.path)

    def labels(self) -> Labels | None:
        """The labels that there are already; None if the text is to give them."""
        known = self.known_header()
        return None if known is None else saved_labels(*known)

    def saved_value(self, name: str, given: Any) -> Any:
        """An option that the training began with; UsageError if another value is given now."""
        assert self.saved is not None
        values = text_record(self.saved.header, self._path)
        if given is not None and given != values.get(name):
            raise changed(name, values.get(name), given)
        return values.get(name)

    def option(self, name: str, default: Any) -> Any:
        """An option about the files: as given, else as the training or the model began, else the default."""
        given = getattr(self.request, name)
        if given is None and self.origin is not None:
            if "text" not in self.origin.header:
                return default
            found = text_record(self.origin.header, self.origin.path).get(name)
            return default if found is None else found
        if self.saved is not None:
            return self.saved_value(name, given)
        return default if given is None else given

    def text_side(self, text: TextOptions, key: str = "") -> tuple[Tokenizer, Vocabulary | None, int]:
        """How to cut the text, the vocabulary if there is one already, and how often a token must be seen for one.

        Args:
            text: the options.
            key: what the header's names of this side begin with.
        """
        if self.saved is not None:
            return (*self._saved_text_side(text, key), 1)
        if self.origin is not None:
            given = [f"--{key.replace('_', '-')}level" if name == "--level" else name for name in text.given()]
            refuse_others(given, "--init-from brings its own vocabulary")
            vocabulary, tokenizer = text_side(self.origin.header, self.origin.path, key)
            return tokenizer, vocabulary, 1
        least_count = text.least_count()
        if text.min_count is None and least_count > 1:
            self.chosen["min_count"] = (least_count, "words seen once teach the model <unk>")
        return text.tokenizer(), None, least_count

    def _saved_text_side(self, text: TextOptions, key: str) -> tuple[Tokenizer, Vocabulary]:
        assert self.saved is not None
        vocabulary, tokenizer = text_side(self.saved.header, self._path, key)
        for name in ("level", "sequence", "normalize", "lowercase"):
            value = getattr(text, name)
            if value is not None and value != getattr(tokenizer, name):
                raise changed(f"{key}level" if name == "level" else name, getattr(tokenizer, name), value)
        for name in ("min_count", "vocab_size"):
            self.saved_value(name, getattr(text, name))
        return tokenizer, vocabulary

    def split(self, read: Callable[..., tuple[C, C | None]], least_count: int) -> tuple[C, C | None]:
        """Read the text, and hold out a part of it or read another for validation.

        Args:
            read: takes ``valid_paths`` or ``valid_frac``, as ``charlm.text.corpus.load`` does.
            least_count: how often a token had to be seen, for the record.
        """
        request, text = self.request, self.request.text
        if [*request.corpus, *request.valid].count(STDIN) > 1:
            raise UsageError("standard input (-) can be read only once; name it once")
        if request.valid and request.valid_frac:
            raise UsageError("--valid and --valid-frac exclude each other; leave out one")
        for path in filter(token_file.is_token_file, request.corpus):
            refuse_others(text.given(), f"{path} is tokenized already")
        fraction = self._fraction()
        if self.saved is not None and request.valid and fraction:
            raise changed("valid", f"--valid-frac {fraction:g}", " ".join(request.valid))
        if request.valid:
            train, valid = read(valid_paths=request.valid)
        else:
            try:
                train, valid = read(valid_frac=fraction or 0.0)
            except InputError:
                if "valid_frac" not in self.chosen:
                    raise
                if not all(map(os.path.isfile, request.corpus)):  # a pipe cannot be read again
                    raise
                train, valid = read()  # or the true fault, without the part held out
                self.chosen["valid_frac"] = (0.0, "too few sequences to hold any out")
                fraction = 0.0
        if self.saved is not None:
            self.text_record = text_record(self.saved.header, self._path)
            self._compare(train, valid)
        else:
            # Of --init-from, the limits are those of the vocabulary that it brings.
            count = None if self.origin is not None else least_count
            self.text_record = {"min_count": count, "vocab_size": text.vocab_size, "valid_frac": fraction}
        share = getattr(train.counts, "unknown_rate", 0.0)
        if share > MOSTLY_UNKNOWN:
            hint = "should it be --level char, or a lower --min-count?"
            if text.vocab_size is not None:
                hint = f"should it be a larger --vocab-size than {text.vocab_size:,}?"
            self.remarks.append(f"{share:.0%} of the tokens are unknown: {hint}")
        if valid is not None and valid.size > train.size:
            self.remarks.append(
                f"the validation text ({valid.size:,} tokens) is longer than the training text ({train.size:,})"
            )
        return train, valid

    def _fraction(self) -> float | None:
        request = self.request
        if self.saved is not None:
            found: float | None = self.saved_value("valid_frac", request.valid_frac)
            return found
        if request.valid_frac is not None or request.valid:
            return request.valid_frac
        size = sum(os.path.getsize(path) for path in request.corpus if os.path.isfile(path))
        fraction, reason = defaults.valid_fraction(size)
        self.chosen["valid_frac"] = (fraction, reason)
        return fraction

    def _compare(self, train: CorpusLike, valid: CorpusLike | None) -> None:
        """InputError if the texts are not those that a training began with."""
        assert self.saved is not None
        known = checkpoint.require(self.saved.header, "corpus", dict, self._path)
        now = fingerprint(train, valid)
        if valid is None and known.get("valid_sha256") is not None:
            begun = f"SHA-256 {str(known['valid_sha256'])[:12]}"
            raise UsageError(f"this training validates with another text ({begun}); give its --valid again")
        for part, what, corpus in (("sha256", "the corpus", train), ("valid_sha256", "the validation text", valid)):
            if known.get(part) != now[part]:
                raise InputError(
                    f"{', '.join((corpus or train).names)}: {what} is not the one this training began with (SHA-256 "
                    f"{str(known.get(part))[:12]}, now {str(now[part])[:12]}); to begin anew on another with the "
                    f"weights that there are: --init-from {self.request.output} and another -o"
                )


def fingerprint(train: CorpusLike, valid: CorpusLike | None) -> dict[str, str | None]:
    """What the corpora are known by."""
    return {"sha256": train.sha256, "valid_sha256": None if valid is None else valid.sha256}


def files_read(train: CorpusLike, valid: CorpusLike | None) -> dict[str, Any]:
    """Which files those are, for people; those of the validation only if they are others."""
    others = None if valid is None or valid.inputs == train.inputs else valid.inputs
    return {"files": _listed(train.inputs), "valid_files": None if others is None else _listed(others)}


def _listed(inputs: Inputs) -> list[dict[str, Any]]:
    return [asdict(file) for file in inputs.files]
