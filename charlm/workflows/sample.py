"""What ``charlm sample`` does: continue a prompt, or begin from nothing, with tokens that a model draws."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError, UsageError
from charlm.text import corpus
from charlm.text.labels import Labels
from charlm.text.readers import display_name, read_blocks
from charlm.text.tokenizer import NEWLINE, Tokenizer
from charlm.text.unknown import column, unknown_message
from charlm.text.vocabulary import EOS_ID, UNK, UNK_ID, Vocabulary
from charlm.workflows.decoding import Drawing, Ids, NextToken, Start, Truncation, beam_search, draw_sequences
from charlm.workflows.finite import naming, require_finite
from charlm.workflows.label_side import first_input

ATTEMPTS = 100  # draws of one sample that --novel may refuse
PROMPT_STEPS = 256  # of a prompt that the model reads at once
LENGTHS = {("file", "char"): 500, ("file", "byte"): 500, ("file", "word"): 100}
LONGEST_SEQUENCE = 1000  # of a line or paragraph, which ends by itself

OnUnknown = Literal["error", "unk", "skip"]


@dataclass(frozen=True)
class SampleOptions:
    """What to draw, and how; the command's options by their names, None for one that was not given.

    Raises:
        UsageError: they contradict each other, or one is out of its range.
    """

    count: int = 1
    label: str | None = None
    prompt: str | None = None
    prompt_file: str | None = None
    on_unknown: OnUnknown = "error"
    max_length: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False
    beam: int | None = None
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    allow_unk: bool = False
    novel: str | None = None

    def __post_init__(self) -> None:
        given = {
            "--prompt": self.prompt is not None,
            "--prompt-file": self.prompt_file is not None,
            "--greedy": self.greedy,
            "--beam": self.beam is not None,
            "--temperature": self.temperature is not None,
            "--top-k": self.top_k is not None,
            "--top-p": self.top_p is not None,
            "--novel": self.novel is not None,
        }
        for one, others in (
            ("--prompt", ("--prompt-file",)),
            ("--greedy", ("--beam", "--temperature", "--top-k", "--top-p", "--novel")),
            ("--beam", ("--temperature", "--top-k", "--top-p", "--novel")),
        ):
            for other in others:
                if given[one] and given[other]:
                    raise UsageError(f"{one} and {other} exclude each other; leave out one")
        for name, number in (
            ("-n", self.count),
            ("--max-length", self.max_length),
            ("--top-k", self.top_k),
            ("--beam", self.beam),
        ):
            if number is not None and number < 1:
                raise UsageError(f"{name} {number}: must be 1 or more")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise UsageError(
                f"--temperature {self.temperature:g}: must be above 0 and finite; for the likeliest token use --greedy"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p:g}: must be above 0 and at most 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be 0 or more")
        if self.greedy and self.count > 1:
            raise UsageError(f"--greedy always finds the same text; leave out -n {self.count}, or use --beam")
        if self.beam is not None and self.count > self.beam:
            raise UsageError(f"--beam {self.beam} cannot give {self.count} texts; use --beam {self.count}")

    @property
    def is_random(self) -> bool:
        """Whether the seed matters."""
        return not self.greedy and self.beam is None


@dataclass(frozen=True)
class Piece:
    """The next bit of the text of a single sample, as soon as it is drawn."""

    text: str


@dataclass(frozen=True)
class Sample:
    """One finished text.

    Attributes:
        index: 0, 1, ...
        text: the prompt and what was drawn.
        tokens: the same, cut; without EOS.
        prompt_tokens: how many of them are the prompt's.
        log_prob_nats: of the whole text under the model as it is, not as temperature and the like change it; with
            that of EOS if the sample ended with it.
        prompt_log_prob_nats: the prompt's part of it.
        ended: by "eos" or at the "length".
        refused: how many draws before it stood in the corpus of ``novel``; None if there is none.
        label: what the model was given; None for a model that is not given any.
    """

    index: int
    text: str
    tokens: list[str]
    prompt_tokens: int
    log_prob_nats: float
    prompt_log_prob_nats: float
    ended: Literal["eos", "length"]
    refused: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Prompt:
    """What a sample begins with: ids for the model, and tokens as the user wrote them, unknown ones too."""

    ids: Ids
    tokens: list[str]


class Joiner:
    """``Tokenizer.join``, a token at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._spaced = tokenizer.level == "word"
        self._last = NEWLINE

    def add(self, token: str) -> str:
        """What the text grows by."""
        touches = not self._spaced or NEWLINE in (token, self._last)
        self._last = token
        return token if touches else " " + token


class KnownSequences:
    """The sequences of a corpus, to look others up in; eight bytes for each.

    Args:
        path: the text or token file.
        vocabulary, tokenizer: the model's.
        labelled: the lines are ``label<TAB>text``. Only their texts count: what stands there under another label was
            copied all the same.

    Raises:
        InputError: it cannot be read, has no labels but should, or was made with another vocabulary or tokenizer.
    """

    def __init__(self, path: str, vocabulary: Vocabulary, tokenizer: Tokenizer, *, labelled: bool = False) -> None:
        known, _ = corpus.load([path], tokenizer, vocabulary=vocabulary, labelled=labelled)
        tokens = known.tokens
        self._dtype = tokens.dtype
        digests, begin = [], 0
        for block in range(0, tokens.size, 1 << 22):
            for end in (np.flatnonzero(tokens[block : block + (1 << 22)] == EOS_ID) + block).tolist():
                digests.append(self._digest(tokens[begin:end].tobytes()))
                begin = end + 1
        self._digests: NDArray[np.uint64] = np.unique(np.array(digests, dtype=np.uint64))

    @staticmethod
    def _digest(data: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")

    def __contains__(self, ids: Sequence[int]) -> bool:
        digest = np.uint64(self._digest(np.array(ids, dtype=self._dtype).tobytes()))
        place = int(self._digests.searchsorted(digest))
        return place < self._digests.size and bool(self._digests[place] == digest)


def read_prompt(options: SampleOptions, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Prompt:
    """The prompt as tokens of the model; of no tokens if there is none.

    Raises:
        InputError: it cannot be read, holds an unknown symbol, or breaks a line where the model has no lines.
    """
    text = options.prompt or ""
    if options.prompt_file is not None:
        text = "".join(read_blocks(options.prompt_file, encoding=tokenizer.encoding))
        if tokenizer.sequence != "file":  # what ends a sequence of the model's is not a part of the prompt
            is_whole_line = tokenizer.sequence == "paragraph" and text.endswith(NEWLINE)
            text = text.rstrip(NEWLINE) + (NEWLINE if is_whole_line else "")
    elif tokenizer.level == "byte":
        text = os.fsencode(text).decode("latin-1")
    if tokenizer.sequence == "line" and NEWLINE in text:
        raise InputError("prompt: has more than one line, but this model writes single lines; give one")
    tokens = tokenizer.tokens(text)
    ids = vocabulary.ids(tokens)
    # In a text of words, <unk> may be written out; it is then what it says.
    unknown = [i for i in np.flatnonzero(ids == UNK_ID).tolist() if tokenizer.level != "word" or tokens[i] != UNK]
    if unknown and options.on_unknown == "error":
        raise _unknown_at(unknown[0], tokens, text, tokenizer)
    if unknown and options.on_unknown == "skip":
        ids = np.delete(ids, unknown)
        tokens = np.delete(np.array(tokens, dtype=object), unknown).tolist()
    try:
        text.encode()
    except UnicodeEncodeError:  # what was no character on the command line must not stop the output
        tokens = [token.encode("utf-8", "replace").decode("utf-8") for token in tokens]
    return Prompt(ids, tokens)


def _unknown_at(number: int, tokens: list[str], text: str, tokenizer: Tokenizer) -> InputError:
    """The error that token ``number`` of a prompt is, in the text as it was given."""
    before = tokens[:number]
    line = before.count(NEWLINE)
    index = before[::-1].index(NEWLINE) if line else number
    where = column(text.split(NEWLINE)[line], index, tokenizer)
    return InputError(unknown_message("prompt", tokens[number], line + 1, where, tokenizer))


def sample(
    model: NextToken,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    options: SampleOptions,
    labels: Labels | None = None,
    path: str = "the model",
) -> Iterator[Piece | Sample]:
    """Draw texts.

    Sample i of a seed is the same whatever the number of samples and of threads.

    Args:
        labels: those of which the model is given one; None for a model without.
        path: what a message calls the model.

    Yields:
        Each sample when it and all before it are finished. A single one that is drawn without ``novel`` and
        ``beam`` comes in pieces first, which together are its text.

    Raises:
        InputError: the prompt, the label or the corpus of ``novel`` is at fault, or no novel sample was found.
        UsageError: ``novel`` with a model of whole files, or a label is missing or not for this model.
        CheckpointError: the model's probabilities are no numbers.
    """
    if options.novel is not None and tokenizer.sequence == "file":
        raise UsageError("--novel compares lines or paragraphs, but this model's sequences are whole files")
    first_id = first_input(options.label, labels, vocabulary)
    prompt = read_prompt(options, vocabulary, tokenizer)
    known = None
    if options.novel is not None:
        known = KnownSequences(options.novel, vocabulary, tokenizer, labelled=labels is not None)
    with naming(path):
        start, prompt_nats = _read(model, prompt.ids, first_id)
    label = None if labels is None else labels.names[first_id - vocabulary.start_id - 1]
    texts = _Texts(vocabulary, tokenizer, prompt, prompt_nats, label)
    if options.beam is None:
        with naming(path):
            yield from _draw(model, start, options, texts, known)
        return
    with naming(path):
        found = beam_search(
            model,
            start,
            width=options.beam,
            best=options.count,
            max_length=options.max_length or texts.default_length,
            shortest=texts.shortest,
            # The end of a whole file right at its begin is likelier than any text of some length.
            can_end=tokenizer.sequence != "file",
            allow_unk=options.allow_unk,
        )
    for index, hypothesis in enumerate(found):
        yield texts.sample(index, hypothesis.ids, hypothesis.log_prob_nats, hypothesis.is_finished)


@dataclass(frozen=True)
class _Texts:
    """Turns what was drawn after a prompt into texts."""

    vocabulary: Vocabulary
    tokenizer: Tokenizer
    prompt: Prompt
    prompt_nats: float
    label: str | None

    @property
    def default_length(self) -> int:
        """The most tokens to draw, if the user does not say."""
        return LENGTHS.get((self.tokenizer.sequence, self.tokenizer.level), LONGEST_SEQUENCE)

    @property
    def shortest(self) -> int:
        """The fewest tokens to draw: a sample is never empty, as hardly a sequence of a training text is."""
        return 0 if self.prompt.tokens else 1

    def sample(self, index: int, ids: list[int], nats: float, is_ended: bool, refused: int | None = None) -> Sample:
        """A sample of these drawn tokens, whose log probability after the prompt is ``nats``."""
        tokens = self.prompt.tokens + [self.vocabulary.symbols[i] for i in ids]
        return Sample(
            index=index,
            text=self.tokenizer.join(tokens),
            tokens=tokens,
            prompt_tokens=len(self.prompt.tokens),
            log_prob_nats=self.prompt_nats + nats,
            prompt_log_prob_nats=self.prompt_nats,
            ended="eos" if is_ended else "length",
            refused=refused,
            label=self.label,
        )


def _draw(
    model: NextToken, start: Start, options: SampleOptions, texts: _Texts, known: KnownSequences | None
) -> Iterator[Piece | Sample]:
    """The samples of random draws, or the greedy one, in the order of their numbers."""
    joiner = Joiner(texts.tokenizer)
    in_pieces = options.count == 1 and known is None
    if in_pieces and texts.prompt.tokens:
        yield Piece("".join(map(joiner.add, texts.prompt.tokens)))
    prompt_ids = texts.prompt.ids.tolist()
    events = draw_sequences(
        model,
        start,
        Truncation(options.allow_unk, options.temperature or 1.0, options.top_k, options.top_p),
        count=options.count,
        max_length=options.max_length or texts.default_length,
        shortest=texts.shortest,
        seed=None if options.greedy else options.seed,
        refuse=lambda ids: known is not None and prompt_ids + ids in known,
        attempts=ATTEMPTS,
    )
    waiting: dict[int, Drawing] = {}
    finished = 0
    for event in events:
        if isinstance(event, int):
            if in_pieces:
                yield Piece(joiner.add(texts.vocabulary.symbols[event]))
            continue
        waiting[event.index] = event
        while finished in waiting:
            row = waiting.pop(finished)
            if row.refused == ATTEMPTS:
                raise InputError(
                    f"{display_name(options.novel or '')}: holds all {ATTEMPTS} draws of sample {row.index + 1}; "
                    "raise --temperature, or leave out --novel"
                )
            refused = None if known is None else row.refused
            yield texts.sample(row.index, row.ids, row.log_prob_nats, row.is_ended, refused)
            finished += 1


def _read(model: NextToken, ids: Ids, first_id: int) -> tuple[Start, float]:
    """Let a model read a prompt after ``first_id``, from the zero state; also the prompt's log probability, in nats."""
    state = model.zero_state(1)
    inputs = np.concatenate([np.array([first_id], dtype=np.int32), ids])
    log_prob_nats = 0.0
    for begin in range(0, ids.size, PROMPT_STEPS):
        targets = ids[begin : begin + PROMPT_STEPS].reshape(-1, 1)
        nats = model.log_probs(inputs[begin : begin + targets.size].reshape(-1, 1), targets, state)
        log_prob_nats += float(nats.sum())
    require_finite(log_prob_nats)
    state, log_probs = model.step(state, inputs[-1:])
    return Start(state, log_probs), log_prob_nats
