"""What a token is, and where a sequence ends: the choices that a model must remember about its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from charlm.errors import UsageError
from charlm.text.normal_form import Form, normalize

LEVELS = ("char", "word", "byte")
SEQUENCES = ("line", "paragraph", "file")
NORMALIZATIONS = ("nfc", "nfkc", "none")

NEWLINE = "\n"


@dataclass(frozen=True)
class Tokenizer:
    r"""How a text becomes tokens and tokens become a text.

    Attributes:
        level: "char", Unicode code points; "word", what whitespace separates (as ``str.split`` finds it); "byte",
            the bytes of a file, each held as the character U+0000 to U+00FF (latin-1), so that any file survives.
        sequence: "line", each line one; "paragraph", blank lines between; "file", the whole text one. Within a
            paragraph or a file the newline is a token, also at word level.
        normalize: the Unicode form, "nfc" or "nfkc", or "none".
        lowercase: whether letters become small.

    Raises:
        UsageError: a choice that does not exist, or one that would change bytes at byte level.
    """

    level: str = "char"
    sequence: str = "line"
    normalize: str = "nfc"
    lowercase: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("level", self.level, LEVELS),
            ("sequence", self.sequence, SEQUENCES),
            ("normalize", self.normalize, NORMALIZATIONS),
        ):
            if value not in choices:
                raise UsageError(f"--{name} {value}: choose one of {', '.join(choices)}")
        if self.level == "byte" and self.normalize != "none":
            raise UsageError("--level byte keeps every byte as it is; leave out --normalize")
        if self.level == "byte" and self.lowercase:
            raise UsageError("--level byte keeps every byte as it is; leave out --lowercase")

    @classmethod
    def from_options(
        cls,
        level: str | None = None,
        sequence: str | None = None,
        normalize: str | None = None,
        lowercase: bool | None = None,
    ) -> Tokenizer:
        """The tokenizer for options of which some (None) were not given.

        Defaults: char; line, but file for bytes; nfc, but none for bytes; no lowercasing.
        """
        level = level or "char"
        is_byte = level == "byte"
        return cls(
            level=level,
            sequence=sequence or ("file" if is_byte else "line"),
            normalize=normalize or ("none" if is_byte else "nfc"),
            lowercase=bool(lowercase),
        )

    @property
    def encoding(self) -> Literal["utf-8", "latin-1"]:
        """How the bytes of a file become the text that this tokenizer takes, and back."""
        return "latin-1" if self.level == "byte" else "utf-8"

    def clean(self, text: str) -> str:
        """Normalise and lower-case. Doing so twice changes nothing more."""
        form: Form = "NFKC" if self.normalize == "nfkc" else "NFC"
        if self.normalize != "none":
            text = normalize(form, text)
        if self.lowercase:
            text = text.lower()
            if self.normalize != "none":  # a small letter may compose where its capital did not
                text = normalize(form, text)
        return text

    def tokens(self, text: str) -> list[str]:
        """Split a text, which is cleaned first."""
        text = self.clean(text)
        if self.level != "word":
            return list(text)
        if self.sequence == "line":
            return text.split()
        return re.findall(r"\n|\S+", text)

    def join(self, tokens: list[str]) -> str:
        """The text that the tokens spell: words one space apart, none around a newline."""
        if self.level != "word":
            return "".join(tokens)
        return re.sub(r" ?\n ?", NEWLINE, " ".join(tokens))

    def is_space(self, token: str) -> bool:
        """Whether a token is blank, so that a line of only such tokens is a blank line."""
        return token.isspace() and (self.level != "byte" or token.isascii())

    def can_yield(self, token: str) -> bool:
        """Whether this could be a token at this level; if not, a vocabulary has no use for it."""
        if self.level == "word":
            return token == NEWLINE or token.split() == [token]
        return len(token) == 1 and (self.level == "char" or token <= "\xff")

    def check_symbols(self, symbols: Sequence[str]) -> None:
        """ValueError, half a line, if a symbol of a file is none that a text of this kind could hold, or be printed."""
        try:
            "".join(symbols).encode(self.encoding)
        except UnicodeEncodeError as error:
            letter = ascii(error.object[error.start])
            raise ValueError(f"the vocabulary holds {letter}, which no text in {self.encoding} does") from None

    def to_json(self) -> dict[str, str | bool]:
        """The choices as an object for a file's header."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Tokenizer:
        """The inverse of ``to_json``.

        Raises:
            ValueError: not exactly the four choices, or one of them is unknown. The message is half a line, for
                the reader of a file to complete.
        """
        if not isinstance(value, dict) or set(value) != {"level", "sequence", "normalize", "lowercase"}:
            raise ValueError("the tokenizer does not have the keys level, sequence, normalize, lowercase")
        for name, choice in value.items():
            if not isinstance(choice, bool if name == "lowercase" else str):
                raise ValueError(f"the tokenizer's {name} is {choice!r:.40}")
        try:
            return cls(**value)
        except UsageError as error:
            raise ValueError(f"the tokenizer is impossible: {error}") from None
