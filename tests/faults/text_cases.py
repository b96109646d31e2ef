"""Texts that hurt, each with what is known of it: as plain text, as labelled lines, pairs, and CoNLL columns."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass

SANE = ["anna", "bela", "carl", "dora anna", "emil", "bela carl"]
ESCAPES = ["\x1b[31m", "\x1b]0;owned\x07", "\x1b[6n", "\x1bP+q\x1b\\", "\x9b31m", "\x9d0;owned\x9c", "\x08\x08", "\x7f"]
SIGNS = {
    "turkish": "İıiI ŞIK",
    "marks": "a" + "\u0301\u0323" * 3000,
    "one mark": "\u0301",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇮",
    "right to left": "\u200fשלום\u200e \u202eabc\u202c \u2067abc\u2069 \u061c",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1eh",
    "noncharacters": "\ufffe\uffff\ufdd0\U0001ffff\U0010ffff",
    "escapes": "".join(ESCAPES),
    "C0 and C1": "".join(map(chr, (*range(1, 9), *range(14, 32), *range(127, 160)))),
    "spaces": "\xa0\u3000\u1680\u200b\u2060\xad",
    "tags": "\U000e0001\U000e0041",
    "private": "\ue000\U000f0000",
    "special words": "<unk> <eos> <s> </s> \\n ␣ ⏎",
    "byte order mark within": "a\ufeffb \ufeff",
    "compatibility": "ﬁ½Åℌ\uff9e\ufdfa",
    "jamo": "\u1112\u1161\u11ab 각",
    "huge word": "x" * 20_000,
    "long line": "ab " * 20_000,
}
LETTERS = "é€😀"
BROKEN = {
    "overlong 2": b"\xc0\x80", "overlong 3": b"\xe0\x80\xaf", "overlong 4": b"\xf0\x80\x80\xaf",
    "five": b"\xf8\x88\x80\x80\x80", "surrogate": b"\xed\xa0\x80", "CESU-8": b"\xed\xa0\xbd\xed\xb8\x80",
    "too high": b"\xf4\x90\x80\x80", "continuation": b"\x80", "latin-1": b"caf\xe9", "FF": b"\xff",
    "C1 raw": b"\x9b31m", "NUL": b"a\0b", "NUL and FF": b"\xff\0",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A text of one kind: "plain", "labelled", "pairs" or "columns"; unpacked, whatever its name ends in."""

    name: str
    data: bytes
    kind: str = "plain"
    suffix: str = ".txt"


def broken_letters() -> Iterator[tuple[str, bytes]]:
    """Each letter of several bytes cut short, and with another byte in each place."""
    for letter in LETTERS:
        data = letter.encode()
        for place in range(1, len(data)):
            yield f"{letter} cut at {place}", data[:place]
            yield f"{letter} without its first {place}", data[place:]
        for place in range(len(data)):
            for byte in (b"\xff", b"\xc3", b"\x80" if place == 0 else b"a"):
                yield f"{letter} with {byte.hex()} at {place}", data[:place] + byte + data[place + 1 :]


def among(line: bytes, end: bytes = b"\n") -> bytes:
    """A line in the midst of harmless ones."""
    lines = [one.encode() for one in SANE]
    return end.join([*lines[:3], line, *lines[3:], b""])


def plain(seed: int, soups: int) -> Iterator[Case]:
    """Texts, and as many soups of them all."""
    for name, sign in SIGNS.items():
        yield Case(name, among(sign.encode()))
    for name, data in (*BROKEN.items(), *broken_letters()):
        yield Case(name, among(data))
    text = among("é€😀".encode())
    yield Case("byte order mark", b"\xef\xbb\xbf" + text)
    yield Case("two byte order marks", b"\xef\xbb\xbf" * 2 + text)
    yield Case("nothing but a byte order mark", b"\xef\xbb\xbf")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-7", "cp037"):
        yield Case(encoding, text.decode().encode(encoding, "replace"))
    yield Case("carriage returns", among(b"x", b"\r"))
    yield Case("mixed ends", b"a\r\nb\rc\n\rd\r\r\n\ne")
    yield Case("no last end", text.rstrip(b"\n"))
    yield Case("empty", b"")
    yield Case("only blanks", b" \t \n  \n\xc2\xa0\n")
    yield Case("only ends", b"\n" * 300)
    yield Case("one letter", b"a")
    yield Case("one end", b"\n")
    yield Case("empty lines between", b"\n" * 3000 + text + b"\n" * 3000)
    yield Case("tabs", among(b"a\tb\t\tc\t"))
    yield Case("packed, not called so", gzip.compress(text, mtime=0))
    yield Case("packed", gzip.compress(text, mtime=0), suffix=".gz")
    yield Case("packed, cut short", gzip.compress(text, mtime=0)[:-9], suffix=".gz")
    yield Case("not packed, but called so", text, suffix=".gz")
    yield Case("archive", b"PK\x03\x04" + text)
    yield Case("token file", b"\x93charlm-tokens\n{}\n")
    rng = random.Random(seed)
    atoms = [sign.encode()[:99] for sign in SIGNS.values()] + [b"\n", b"\r", b"\r\n", b" ", b"\t", b"a", b"b\n"] * 3
    for number in range(soups):
        some = atoms + list(BROKEN.values()) * (number % 2)
        yield Case(f"soup {number}", b"".join(rng.choices(some, k=rng.randrange(1, 40))))


def labelled() -> Iterator[Case]:
    """``label<TAB>text``; every other one is at fault."""
    sane = [f"{'xyz'[i % 3]}\t{line}" for i, line in enumerate(SANE * 3)]

    def case(name: str, *lines: str) -> Case:
        return Case(name, "".join(f"{line}\n" for line in [*sane, *lines]).encode(), "labelled")

    for name, sign in SIGNS.items():
        yield case(f"text: {name}", f"x\t{sign}")
        yield case(f"label: {name}", f"{sign}\tanna", f"{sign}\tbela")
    yield case("no tab", "anna")
    yield case("no label", "\tanna")
    yield case("no text", "x\t")
    yield case("many tabs", "x\ta\tb\t\t")
    yield case("only a tab", "\t")
    yield case("label <unk>", "<unk>\tanna", "<eos>\tanna", "all\tanna")
    yield Case("one label", b"x\tanna\n" * 9, "labelled")
    yield Case("labels seen once", "".join(f"{i}\tanna\n" for i in range(30)).encode(), "labelled")
    yield Case("not UTF-8", "\n".join(sane).encode() + b"\nx\tcaf\xe9\n", "labelled")


def pairs() -> Iterator[Case]:
    """``source<TAB>target``."""
    sane = [f"{line}\t{line[::-1]}" for line in SANE * 3]

    def case(name: str, *lines: str) -> Case:
        return Case(name, "".join(f"{line}\n" for line in [*sane, *lines]).encode(), "pairs")

    for name, sign in SIGNS.items():
        yield case(f"source: {name}", f"{sign[:300]}\tanna")
        yield case(f"target: {name}", f"anna\t{sign[:300]}")
    yield case("no tab", "anna")
    yield case("two tabs", "a\tb\tc")
    yield case("no source", "\tanna")
    yield case("no target", "anna\t")
    yield case("only a tab", "\t")
    yield Case("not UTF-8", "\n".join(sane).encode() + b"\nx\tcaf\xe9\n", "pairs")


def columns() -> Iterator[Case]:
    """A token and a tag a line, a blank line after each sentence."""
    sane = "".join(f"{line.split()[0]}\t{'AB'[i % 2]}\n{'' if i % 3 else chr(10)}" for i, line in enumerate(SANE * 3))

    def case(name: str, text: str) -> Case:
        return Case(name, f"{sane}\n{text}\n".encode(), "columns")

    for name, sign in SIGNS.items():
        yield case(f"token: {name}", f"{sign}\tA\n")
        yield case(f"tag: {name}", f"anna\t{sign}\n")
    yield case("too few columns", "anna\n")
    yield case("too many columns", "anna\tA\tB\n")
    yield case("no token", "\tA\n")
    yield case("no tag", "anna\t\n")
    yield case("blanks for tabs", "anna A\n")
    yield case("documents", "-DOCSTART-\n\n-DOCSTART- x y z\nanna\tA\n")
    yield case("a long sentence", "anna\tA\n" * 3000)
    yield Case("not UTF-8", sane.encode() + b"\ncaf\xe9\tA\n", "columns")


def every_case(seed: int, soups: int) -> list[Case]:
    """All of them."""
    return [*plain(seed, soups), *labelled(), *pairs(), *columns()]
