"""Entities in tagged sentences, counted as conlleval, the script of the CoNLL shared tasks, counts them.

A tag is ``O``, or a position, a hyphen and a type: ``B-person``. With the positions B and I it says both what is known
as BIO (or IOB2: each entity begins with B) and IOB1 (B only right after an entity of the same type):

    (1) a token outside is O; any other belongs to exactly one entity
    (2) a token that is not O begins an entity if its position is B, or the token before is O or of another type,
        or there is none before in its sentence
    (3) otherwise it goes on with the entity of the token before
    (4) an entity found is correct if one with the same first token, last token and type is there

So I-person after O or after B-place begins an entity, and a B after an I of its type begins a second one. Of IOBES (its
E ends an entity of several tokens, S is one alone; BILOU calls them L and U):

    (5) a token also begins an entity if its position is S, or that of the token before is E or S

Source: Tjong Kim Sang and Buchholz, 2000, and the output of conlleval that is described with the CoNLL-2000 data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from charlm.evaluation.matches import Matches, ratio
from charlm.evaluation.table import align

OUTSIDE = "O"
BEGINS = {"B", "S", "U"}  # positions, each in the words of more than one scheme
ENDS = {"E", "S", "L", "U"}
POSITIONS = BEGINS | ENDS | {"I"}
UNTYPED = {"B", "I"}  # positions that may stand alone, where all entities are of one type


@dataclass(frozen=True)
class Entity:
    """Tokens ``first`` to ``last``, from 0, of a sentence."""

    first: int
    last: int
    kind: str


@dataclass(frozen=True)
class EntityScores:
    """What was counted in tagged sentences.

    Attributes:
        tokens: how many.
        correct_tokens: those with the right tag.
        by_kind: entities of each type that is there or was found, types by code point.
    """

    tokens: int
    correct_tokens: int
    by_kind: dict[str, Matches]

    @property
    def token_accuracy(self) -> float:
        """The share of tokens with the right tag; 0 of nothing."""
        return ratio(self.correct_tokens, self.tokens)

    @property
    def overall(self) -> Matches:
        """Entities of all types."""
        return sum(self.by_kind.values(), Matches())


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, by rules (1) to (3) and (5), in order."""
    found: list[Entity] = []
    may_go_on = False  # whether the token before leaves an entity open
    for place, tag in enumerate(tags):
        position, _, kind = tag.partition("-")
        if position == OUTSIDE:
            may_go_on = False
            continue
        goes_on = may_go_on and position not in BEGINS and found[-1].kind == kind
        first = found.pop().first if goes_on else place
        found.append(Entity(first, place, kind))
        may_go_on = position not in ENDS
    return found


def names_entities(tags: Iterable[str]) -> bool:
    """Whether tags mark entities: all are O or a position (and a type), and one is not O. Parts of speech do not."""
    parts = [tag.partition("-") for tag in tags if tag != OUTSIDE]
    return bool(parts) and all(position in (POSITIONS if kind else UNTYPED) for position, _, kind in parts)


def score_entities(sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> EntityScores:
    """Compare the tags of sentences.

    Args:
        sentences: the true tags and those that were found, of each.

    Raises:
        ValueError: a sentence has not as many of one as of the other.
    """
    tokens = correct_tokens = 0
    gold: Counter[str] = Counter()
    found: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for true_tags, found_tags in sentences:
        tokens += len(true_tags)
        correct_tokens += sum(a == b for a, b in zip(true_tags, found_tags, strict=True))
        true_entities, found_entities = set(entities(true_tags)), set(entities(found_tags))
        gold.update(entity.kind for entity in true_entities)
        found.update(entity.kind for entity in found_entities)
        correct.update(entity.kind for entity in true_entities & found_entities)
    kinds = sorted(gold.keys() | found.keys())
    return EntityScores(tokens, correct_tokens, {k: Matches(gold[k], found[k], correct[k]) for k in kinds})


def render_entities(scores: EntityScores) -> str:
    """Precision, recall and F1 of each type and of all, as lines of aligned columns."""
    rows = [["entity", "precision", "recall", "F1", "there", "found", "correct"]]
    for name, m in [*scores.by_kind.items(), ("all", scores.overall)]:
        shares = [f"{100 * share:.2f} %" for share in (m.precision, m.recall, m.f1)]
        rows.append([name, *shares, f"{m.gold:,}", f"{m.found:,}", f"{m.correct:,}"])
    return align(rows, left=1)
