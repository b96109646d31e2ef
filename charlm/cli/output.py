r"""Where everything leaves charlm: results for stdout, messages for stderr, both harmless to a terminal.

A text, a model's symbols, a label or a file's name may hold what a terminal obeys: escape sequences that colour it,
retitle it, move its cursor or answer in the user's name, and marks that show letters in another order than they have.
Into a file or a pipe a text goes as it is, in UTF-8 whatever the locale. On a terminal, and in messages everywhere,
what would be obeyed is shown as \x1b instead.
"""

from __future__ import annotations

import codecs
import math
import os
import re
import shlex
import shutil
import sys
import time
from typing import Any, TextIO

import click

from charlm.errors import OutputError

WIDTHS = 40, 100  # of a report or a drawing, whatever the terminal's
FLUSH_SECONDS = 0.02  # what is written is seen no later than this, or with what is written next

# C0 but the tab and the newline, DEL, C1; line and paragraph separators, bidirectional embeddings, overrides and
# isolates; halves of surrogate pairs, as which file names hold bytes that are not UTF-8.
OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, as_json: bool = False) -> str:
    r"""The text with what a terminal would obey in a form that is seen; the newline and the tab stay.

    Args:
        text: any.
        as_json: the text is JSON and remains so: ``\u001b`` instead of ``\x1b``.
    """
    return OBEYED.sub(_json_form if as_json else _form, text)


def _form(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _json_form(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def on_one_line(text: str) -> str:
    """The text with an escape for whatever could not be printed, or would leave the line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_ready(value: Any) -> Any:
    """What JSON can hold: null for a number that is infinite or none, at any depth."""
    if isinstance(value, dict):
        return {key: json_ready(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def quoted(word: str) -> str:
    """A word of a command line as a shell takes it; $'...' where it could not be shown otherwise."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(plain)}'"


def terminal_width() -> int:
    """Columns for what is drawn: the terminal's, within `WIDTHS`; 80 where there is none."""
    return min(max(shutil.get_terminal_size().columns, WIDTHS[0]), WIDTHS[1])


def can_show(text: str) -> bool:
    """Whether the locale's encoding, or the one that standard output was given, has all characters of a text."""
    try:
        text.encode((sys.stdout and sys.stdout.encoding) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sees what goes through one of the standard streams, which is None if it is closed."""
    return stream is not None and stream.isatty()


def say(text: str, *, dim: bool = False) -> None:
    """Print a message on stderr, harmless wherever that leads; nothing if stderr is closed."""
    shown = visible(text)
    click.echo(click.style(shown, dim=True) if dim else shown, err=True)


def tell_who_types(path: str) -> None:
    """Say what is waited for, if ``path`` is standard input and that is a terminal."""
    if path == "-" and is_terminal(sys.stdin):
        say("reading from the terminal, up to Ctrl-D")


class Output:
    """Stdout for results: as they are into a file or a pipe, harmless on a terminal.

    Args:
        raw: as they are on a terminal, too.
        as_bytes: what is written is the text of a model of bytes, U+0000 to U+00FF, which become bytes again; on a
            terminal they are shown as the UTF-8 that they may be.
        as_json: it is JSON, in which what would be obeyed is escaped everywhere. It means the same, and a line is one
            to who splits lines at U+0085 or U+2028, too.

    Raises:
        OutputError: stdout is closed, so that results would be lost.
    """

    def __init__(self, *, raw: bool = False, as_bytes: bool = False, as_json: bool = False) -> None:
        if sys.stdout is None:
            raise OutputError("standard output is closed, so the results would be lost; send them to a file or a pipe")
        self.is_terminal = is_terminal(sys.stdout)
        self._stream = sys.stdout.buffer
        self._encoding = (sys.stdout.encoding if self.is_terminal else None) or "utf-8"
        self._guards = as_json or (self.is_terminal and not raw)
        self._as_bytes, self._as_json = as_bytes, as_json
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._flushed = 0.0

    def write(self, text: str) -> None:
        """Write a bit of text, and let it be seen soon."""
        self._stream.write(self._encoded(text))
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            self._stream.flush()

    def flush(self) -> None:
        """Let all be seen; but of a character of which bytes are missing nothing yet."""
        self._stream.flush()

    def finish(self) -> None:
        """Write what is held back: no more comes."""
        if self._as_bytes:
            self._stream.write(self._encoded("", is_last=True))
        self._stream.flush()

    def _encoded(self, text: str, *, is_last: bool = False) -> bytes:
        if self._as_bytes:
            data = text.encode("latin-1")
            if not self._guards:
                return data
            text = self._decoder.decode(data, is_last)
        if self._guards:
            text = visible(text, as_json=self._as_json)
        # What a terminal has no letter for is shown like what it would obey.
        return text.encode(self._encoding, "backslashreplace")
