"""Values that a header's fields should not have, and ways to put them there."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

LARGE = 250_000  # letters, or entries, of what is to be too much
ESCAPE = "\x1b]0;owned\x07\x1b[31m"
PLACEHOLDER = "\ue000number\ue000"  # becomes JSON that json.dumps would not write

STRINGS = (
    "", " ", "\n", "\0", "\ud800", "\udc80x", ESCAPE, "a\nb", "a\tb", "\u202eabc", "x" * LARGE, "\U0001f600" * 9999,
    "nan", "../../x", "C:\\x", "%s%n{}", "True", "lstm", "gru", "rnn", "lstm-peephole", "adaptive", "full", "word",
    "byte", "char", "file", "paragraph", "nfkc", "none", "lm", "tag", "classify", "transduce", "model",
    "training-state", "object", "float64", "int8", "sgd", "plateau", "constant", "value", "random", "relu",
)  # fmt: skip
NUMBERS = (
    0, 1, 2, 3, -1, -(2**63), 2**31, 2**32, 2**40, 2**53, 2**63, 2**64, 10**30, 10**400, 7, 64, 65, 1000, 10**6,
    0.0, -0.0, 0.5, 1.5, -1.0, 1e-320, 1e30, 1e308, -1e308,
)  # fmt: skip
RAW = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 4200, "9" * 6000, "0." + "1" * 9000, "1e-99999")


def hostile_value(draw: random.Random) -> Any:
    """One of a type or a size that nobody expects; a string that holds `PLACEHOLDER` stands for raw JSON."""
    kind = draw.randrange(12)
    if kind == 0:
        return None
    if kind == 1:
        return draw.choice([True, False])
    if kind in (2, 3, 4, 5):
        return draw.choice(NUMBERS)
    if kind in (6, 7):
        return draw.choice(STRINGS)
    if kind == 8:
        return PLACEHOLDER + draw.choice(RAW) + PLACEHOLDER
    if kind == 9:
        return draw.choice([[], [None], [[]], ["a"], ["a", "a"], [1, 2, 3], [{}], [0] * 9999, ["<unk>", "<eos>"]])
    if kind == 10:
        return draw.choice([{}, {"a": 1}, {"": None}, {"shape": [2, 2], "dtype": "float32"}, {"level": "char"}])
    return draw.choice([[0.5] * 99, {str(i): i for i in range(9999)}, [[[[[[]]]]]]])


def raw_numbers(text: str) -> str:
    """JSON in which the placeholders have become what they stand for."""
    marked = PLACEHOLDER.encode("ascii", "backslashreplace").decode()
    return text.replace(f'"{marked}', "").replace(f'{marked}"', "")


Place = tuple[Any, Any]  # a container, and a key of it


def places(value: Any, most: int = 12) -> Iterator[Place]:
    """Every place in a header; of a long list some."""
    entries: list[Any] = []
    if isinstance(value, dict):
        entries = list(value)
    elif isinstance(value, list):
        entries = [*range(min(len(value), most)), *range(max(most, len(value) - 2), len(value))]
    for key in entries:
        yield value, key
        yield from places(value[key], most)


def change_field(header: Any, draw: random.Random, within: tuple[str, ...] = ()) -> str:
    """Replace or remove a field, or add one; says what. ``within``: the keys in one of which it lies."""
    roots = [key for key in within if isinstance(header.get(key), dict | list)] if isinstance(header, dict) else []
    root = header[draw.choice(roots)] if roots else header
    # First how deep, then which: or all would be symbols of the vocabulary.
    by_depth: dict[int, list[Place]] = {}
    for container, key in places(root):
        by_depth.setdefault(id(container), []).append((container, key))
    if not by_depth:
        return "nothing to change"
    container, key = draw.choice(draw.choice(list(by_depth.values())))
    action = draw.randrange(10)
    if action == 0:
        del container[key]
        return f"without {key!r:.30}"
    if action == 1 and isinstance(container, dict):
        container[draw.choice(STRINGS[:14])] = hostile_value(draw)
        return f"one more beside {key!r:.30}"
    if action == 2 and isinstance(container, list):
        container.insert(draw.randrange(len(container) + 1), copy.deepcopy(container[key]))
        return f"{key!r:.30} twice"
    if action == 3 and isinstance(container, dict):
        other = draw.choice(list(container))
        container[key], container[other] = container[other], container[key]
        return f"{key!r:.30} and {other!r:.30} swapped"
    value = hostile_value(draw)
    container[key] = value
    return f"{key!r:.30} is {value!r:.40}"


def huge_list(draw: random.Random) -> list[Any]:
    """A list of names that is too much, or not one."""
    makers: tuple[Callable[[], list[Any]], ...] = (
        lambda: [],
        lambda: ["<unk>", "<eos>"],
        lambda: ["<unk>", "<eos>", "a"],
        lambda: ["<unk>", "<eos>", "a", "b"],
        lambda: ["<eos>", "<unk>", "a", "b"],
        lambda: ["<unk>", "<eos>", "a", "a"],
        lambda: ["<unk>", "<eos>", "", "b"],
        lambda: ["<unk>", "<eos>", "x" * LARGE, "y" * LARGE],
        lambda: ["<unk>", "<eos>", *(chr(0x4E00 + i) for i in range(9999))],
        lambda: ["<unk>", "<eos>", *(str(i) for i in range(60_000))],
        lambda: ["<unk>", "<eos>", ESCAPE, "a\nb", "a\tb", "\n", "\t", "\r"],
        lambda: ["<unk>", "<eos>", "\ud800", "a"],
        lambda: ["<unk>", "<eos>", "\u4e00", "\xff", "\xe9"],
        lambda: [1, 2, 3],
        lambda: [["<unk>"], ["<eos>"]],
    )
    return draw.choice(makers)()
