"""What readers of whole examples share: several inputs as one list, its fingerprint, and the part held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from charlm.errors import InputError, UsageError
from charlm.text.inputs import Inputs, OfInputs, Witness
from charlm.text.readers import STDIN, display_name
from charlm.text.split import exact_fraction, held_evenly
from charlm.wording import counted

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Reader(Protocol[T_co]):
    """Reads the examples of one input."""

    def __call__(self, path: str, *, observe: Callable[[bytes], object]) -> Iterable[T_co]:
        """The examples, in order; ``observe`` is called with all bytes."""


@dataclass(frozen=True)
class Examples(OfInputs, Generic[T]):
    """The examples of some inputs.

    Attributes:
        places: of each, the input and the line it begins in, such as ``visits.conll: line 7``.
        inputs: what was read.
    """

    examples: list[T]
    places: list[str]
    inputs: Inputs


class Numbered(Protocol):
    """An example that knows its line."""

    @property
    def line(self) -> int:
        """From 1."""


N = TypeVar("N", bound=Numbered)


def read_whole(paths: Sequence[str], read: Reader[N]) -> Examples[N]:
    """Read all examples of all inputs.

    Raises:
        InputError: an input is at fault, or holds no example.
        UsageError: standard input is named twice.
    """
    if list(paths).count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once; name it once")
    witness = Witness()
    examples: list[N] = []
    places: list[str] = []
    for path in paths:
        before = len(examples)
        examples.extend(read(path, observe=witness.read))
        witness.end(path)
        name = display_name(path)
        places.extend(f"{name}: line {example.line}" for example in examples[before:])
        if len(examples) == before:
            raise InputError(f"{name}: holds nothing but blank lines")
    return Examples(examples, places, witness.inputs)


def hold_out(whole: Examples[N], fraction: float) -> tuple[Examples[N], Examples[N] | None]:
    """Every so manieth example is held out, as lists are sorted; see `held_evenly`.

    Raises:
        InputError: a part would hold nothing.
        UsageError: the fraction is outside its range.
    """
    exact = exact_fraction(fraction)
    if not exact:
        return whole, None
    held = held_evenly(0, len(whole.examples), exact).tolist()

    def part(wanted: bool) -> Examples[N]:
        numbers = [number for number, is_held in enumerate(held) if is_held == wanted]
        if not numbers:
            raise InputError(
                f"{whole.names[0]}: {counted(len(held), 'example')}, too few to hold out {fraction:g} of them"
            )
        return Examples([whole.examples[i] for i in numbers], [whole.places[i] for i in numbers], whole.inputs)

    return part(False), part(True)
