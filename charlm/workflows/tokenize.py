"""What ``charlm tokenize`` does: count the tokens of a text, show them, store them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charlm import checkpoint
from charlm.errors import InputError, UsageError
from charlm.files import check_writable
from charlm.text import token_file
from charlm.text.corpus import Corpus, load
from charlm.text.readers import STDIN, read_lines
from charlm.text.spool import array_blocks
from charlm.text.tokenizer import NEWLINE, Tokenizer
from charlm.text.unknown import quoted
from charlm.text.visible import visible
from charlm.text.vocabulary import EOS, EOS_ID, LONGEST_SYMBOL, UNK, Vocabulary
from charlm.workflows.text_side import text_side

NEWLINE_ESCAPE = r"\n"
ZIP_MAGIC = b"PK\x03\x04"  # how a model (.npz) begins


@dataclass(frozen=True)
class TextOptions:
    """The options of a command that reads texts; None for one that was not given."""

    level: str | None = None
    sequence: str | None = None
    min_count: int | None = None
    vocab_size: int | None = None
    lowercase: bool | None = None
    normalize: str | None = None

    def given(self) -> list[str]:
        """The options that were given, as they are spelt on the command line."""
        return [f"--{name.replace('_', '-')}" for name, value in asdict(self).items() if value is not None]

    def of_level(self, level: str | None) -> TextOptions:
        """The same, but for the level."""
        return replace(self, level=level)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer they ask for; UsageError if they contradict each other."""
        return Tokenizer.from_options(self.level, self.sequence, self.normalize, self.lowercase)

    def least_count(self) -> int:
        """How often a token must be seen for the vocabulary: 2 for words unless given, so that <unk> is learnt.

        It does not apply where a token file, a model or a list gives the vocabulary.
        """
        if self.min_count is not None:
            return self.min_count
        return 2 if self.tokenizer().level == "word" else 1


def tokenize(
    paths: Sequence[str],
    options: TextOptions,
    *,
    vocab: str | None = None,
    output: str | None = None,
    on_bytes: Callable[[int], object] | None = None,
) -> Corpus:
    """Read texts or a token file as one corpus, and perhaps write it as a token file.

    Args:
        paths: as ``charlm.text.corpus.load`` takes them.
        options: how to cut them.
        vocab: a token file, a model or a list of symbols, whose vocabulary to use instead of the text's own.
        output: the token file to write.
        on_bytes: called with the number of bytes that were read since the last call.

    Raises:
        InputError: an input is at fault; nothing was written.
        CheckpointError: the model is.
        UsageError: options contradict each other, or ``output`` is the text itself or standard output.
        OutputError: ``output`` cannot be written.
    """
    if output == STDIN:
        raise UsageError("-o -: a token file cannot go to standard output; name a file")
    if output is not None:
        check_writable(output)
        if any(path != STDIN and _is_same_file(path, output) for path in paths):
            raise UsageError(f"{output}: is the text itself; choose another name for -o")
    stored = next((path for path in paths if token_file.is_token_file(path)), None)
    given = [*options.given(), *(["--vocab"] if vocab is not None else [])]
    if stored is not None and given:
        raise UsageError(f"{stored}: is tokenized already; leave out {', '.join(given)}, or give the text itself")
    tokenizer, vocabulary = options.tokenizer(), None
    if vocab is not None:
        tokenizer, vocabulary = read_vocabulary(vocab, options)
    corpus, _ = load(
        paths,
        tokenizer,
        min_count=options.least_count(),
        vocab_size=options.vocab_size,
        vocabulary=vocabulary,
        on_bytes=on_bytes,
    )
    if output is not None:
        token_file.write(output, corpus)
    return corpus


def read_vocabulary(path: str, options: TextOptions) -> tuple[Tokenizer, Vocabulary]:
    """A vocabulary from a file, and the tokenizer: the file's, if it has one, but for the options given.

    Raises:
        InputError, CheckpointError: the file is at fault.
        UsageError: options contradict each other, or limit a vocabulary that is given.
    """
    if options.min_count is not None or options.vocab_size is not None:
        raise UsageError("--vocab gives the vocabulary as it is; leave out --min-count and --vocab-size")
    if token_file.is_token_file(path):
        corpus = token_file.read(path)
        stored, vocabulary = corpus.tokenizer, corpus.vocabulary
    elif _is_model(path):
        vocabulary, stored = text_side(checkpoint.load(path).header, path)
    else:
        tokenizer = options.tokenizer()
        return tokenizer, _listed_vocabulary(path, tokenizer)
    tokenizer = _with_options(stored, options)
    try:
        tokenizer.check_symbols(vocabulary.symbols)
    except ValueError as error:
        raise InputError(f"{path}: {error}; leave out --level {tokenizer.level}") from None
    return tokenizer, vocabulary


def _is_model(path: str) -> bool:
    if path == STDIN or not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def _with_options(tokenizer: Tokenizer, options: TextOptions) -> Tokenizer:
    """A stored tokenizer; if another level is asked for, nothing of it is left to use."""
    if options.level not in (None, tokenizer.level):
        return options.tokenizer()
    return Tokenizer(
        level=tokenizer.level,
        sequence=options.sequence or tokenizer.sequence,
        normalize=options.normalize or tokenizer.normalize,
        lowercase=tokenizer.lowercase or bool(options.lowercase),
    )


def _listed_vocabulary(path: str, tokenizer: Tokenizer) -> Vocabulary:
    """A vocabulary from a list of symbols, one a line."""
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        symbol = NEWLINE if line == NEWLINE_ESCAPE else line
        if symbol in (UNK, EOS):
            continue
        if not symbol or not tokenizer.can_yield(symbol):
            raise InputError(
                f"{path}, line {number}: {quoted(line)} is not a token at --level {tokenizer.level}; "
                r"a list of symbols has one a line, and \n for the newline"
            )
        if len(symbol) > LONGEST_SYMBOL:
            raise InputError(
                f"{path}, line {number}: has {len(symbol):,} characters, more than the {LONGEST_SYMBOL:,} that a token "
                "of a vocabulary may have; a list of symbols has one a line"
            )
        if symbol in lines:
            before = lines[symbol]
            raise InputError(f"{path}, line {number}: {quoted(line)} stands in line {before} already; leave out one")
        lines[symbol] = number
    if not lines:
        raise InputError(f"{path}: holds no symbols; write one a line")
    return Vocabulary((UNK, EOS, *lines))


def _is_same_file(path: str, other: str) -> bool:
    return Path(path).exists() and Path(other).exists() and Path(path).samefile(other)


def describe(corpus: Corpus) -> dict[str, Any]:
    """The counts and what they were counted in, for a program to read."""
    return {
        "files": corpus.names,
        "sha256": corpus.sha256,
        **corpus.tokenizer.to_json(),
        **asdict(corpus.counts),
        "tokens_with_eos": corpus.tokens.size,
        "unknown_rate": corpus.counts.unknown_rate,
        "vocabulary": corpus.vocabulary.size,
    }


def shown_lines(corpus: Corpus) -> Iterator[str]:
    """The tokens in a form that can be seen, in pieces of text: a line for each sequence, a space between tokens."""
    shown = [f"{visible(symbol)} " for symbol in corpus.vocabulary.symbols]
    shown[EOS_ID] = "\n"
    rest = ""
    for block in array_blocks(corpus.tokens):
        # A line ends without the space that follows each token.
        text = (rest + "".join(map(shown.__getitem__, block.tolist()))).replace(" \n", "\n")
        rest = " " if text.endswith(" ") else ""
        yield text.removesuffix(" ")
