"""A text as a model's tokens, cut into sequences as its training text was."""

from __future__ import annotations

from collections.abc import Iterator

from charlm.errors import InputError
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.readers import display_name, read_blocks
from charlm.text.spool import Ids, Spool
from charlm.text.tokenizer import NEWLINE
from charlm.text.unknown import column, unknown_message
from charlm.text.vocabulary import UNK_ID
from charlm.wording import counted
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.scoring_batches import Text, encode, line_windows, paragraph_windows


def read_tokens(path: str, loaded: LoadedModel, on_unknown: str) -> Ids:
    """The ids of a text or token file, 1-D, each sequence closed by EOS.

    Args:
        path: of the text, ``-`` for standard input; or of a token file with the model's vocabulary.
        loaded: the model.
        on_unknown: what a token is that the model does not know: "unk", "error", or "skip", as if it were not there.

    Raises:
        InputError: the text is at fault, or empty; or holds an unknown token, and that is an error.
    """
    if token_file.is_token_file(path):
        return _stored_tokens(path, loaded, on_unknown)
    size, spool = loaded.vocabulary.size, Spool()
    for text in _texts(path, loaded):
        foreign = text.foreign
        if on_unknown == "error" and foreign.any():
            place = int(foreign.argmax())
            line, index = text.line_of(place)
            where = column(text.lines[line], index, loaded.tokenizer)
            number = text.numbers[line]
            raise InputError(unknown_message(display_name(path), text.tokens[place], number, where, loaded.tokenizer))
        spool.append(text.ids[~foreign] if on_unknown == "skip" else text.ids, size)
    tokens = spool.array(size)
    if not tokens.size:
        raise InputError(f"{display_name(path)}: empty; there is nothing to read")
    return tokens


def _stored_tokens(path: str, loaded: LoadedModel, on_unknown: str) -> Ids:
    corpus, _ = load([path], loaded.tokenizer, vocabulary=loaded.vocabulary)
    if on_unknown == "error" and corpus.counts.unknowns:
        raise InputError(
            f"{path}: holds {counted(corpus.counts.unknowns, 'token')} not in the model's vocabulary; "
            "use --on-unknown skip or unk"
        )
    return corpus.tokens[corpus.tokens != UNK_ID] if on_unknown == "skip" else corpus.tokens


def _texts(path: str, loaded: LoadedModel) -> Iterator[Text]:
    """A text in pieces, whose lines are closed by EOS where a sequence ends."""
    vocabulary, tokenizer = loaded.vocabulary, loaded.tokenizer
    if tokenizer.sequence == "paragraph":
        windows = line_windows(path, tokenizer.encoding)
        for window in paragraph_windows(windows, lambda line: all(map(tokenizer.is_space, line))):
            yield encode(vocabulary, tokenizer, *window)
        return
    number = 1
    if tokenizer.sequence == "line":
        for lines in line_windows(path, tokenizer.encoding):
            yield encode(vocabulary, tokenizer, lines, range(number, number + len(lines)))
            number += len(lines)
        return
    for block in read_blocks(path, encoding=tokenizer.encoding):
        is_whole = block.endswith(NEWLINE)  # but perhaps for the last, a block's last line is
        lines = block.removesuffix(NEWLINE).split(NEWLINE)
        text = encode(vocabulary, tokenizer, lines, range(number, number + len(lines)), [False] * len(lines))
        ids = text.ids if is_whole else text.ids[:-1]
        yield Text(lines, text.numbers, text.tokens[: ids.size], ids, text.line_ends, text.sequence_ends)
        number += len(lines)
    if number > 1:
        yield encode(vocabulary, tokenizer, [""], [number])  # the end
