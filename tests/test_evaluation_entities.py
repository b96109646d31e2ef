from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.evaluation.entities import Entity, EntityScores, entities, names_entities, render_entities, score_entities
from charlm.evaluation.matches import Matches

tags_of_bio = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=12)
pairs_of_tags = st.lists(st.tuples(*[st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"])] * 2), max_size=12)
sentences = st.lists(pairs_of_tags.map(lambda pairs: ([a for a, _ in pairs], [b for _, b in pairs])), max_size=6)


def spans(tags: str) -> list[tuple[int, int, str]]:
    return [(entity.first, entity.last, entity.kind) for entity in entities(tags.split())]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-x I-x O", [(0, 1, "x")]),
        ("O B-x", [(1, 1, "x")]),
        ("I-x I-x", [(0, 1, "x")]),  # IOB1: nothing before, so I begins it
        ("O I-x O I-x", [(1, 1, "x"), (3, 3, "x")]),
        ("I-x B-x I-x", [(0, 0, "x"), (1, 2, "x")]),  # IOB1: B parts neighbours of one type
        ("B-x B-x", [(0, 0, "x"), (1, 1, "x")]),
        ("I-x I-y", [(0, 0, "x"), (1, 1, "y")]),  # another type
        ("B-x I-y I-y", [(0, 0, "x"), (1, 2, "y")]),
        ("B-x I-y I-x", [(0, 0, "x"), (1, 1, "y"), (2, 2, "x")]),
        ("B-x O I-x", [(0, 0, "x"), (2, 2, "x")]),
        ("B-creative-work I-creative-work", [(0, 1, "creative-work")]),  # the first hyphen parts
        ("B I O I", [(0, 1, ""), (3, 3, "")]),
        ("S-x S-x", [(0, 0, "x"), (1, 1, "x")]),
        ("B-x I-x E-x B-x E-x", [(0, 2, "x"), (3, 4, "x")]),
        ("B-x E-x I-x", [(0, 1, "x"), (2, 2, "x")]),  # nothing is open after E
        ("B-x E-x E-x", [(0, 1, "x"), (2, 2, "x")]),
        ("S-x I-x", [(0, 0, "x"), (1, 1, "x")]),
        ("I-x S-x E-x", [(0, 0, "x"), (1, 1, "x"), (2, 2, "x")]),
        ("O E-x", [(1, 1, "x")]),
        ("B-x E-y", [(0, 0, "x"), (1, 1, "y")]),
        ("B-x L-x U-x", [(0, 1, "x"), (2, 2, "x")]),  # BILOU's names for E and S
    ],
)
def test_entities_by_hand(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert spans(tags) == expected


def chunk_edges(tags: Sequence[str]) -> tuple[set[int], set[int]]:
    """Where entities begin and where they have ended (exclusive), each decided alone from two neighbouring tags."""
    begins, ends = set(), set()
    before = "O"
    for place, tag in enumerate([*tags, "O"]):
        other_type = before[2:] != tag[2:]
        if tag != "O" and (tag[0] == "B" or before == "O" or other_type):
            begins.add(place)
        if before != "O" and (tag == "O" or tag[0] == "B" or other_type):
            ends.add(place)
        before = tag
    return begins, ends


@given(tags=tags_of_bio)
def test_entities_are_what_lies_between_their_edges(tags: list[str]) -> None:
    begins, ends = chunk_edges(tags)
    found = entities(tags)
    assert [entity.first for entity in found] == sorted(begins)
    assert [entity.last + 1 for entity in found] == sorted(ends)
    covered = [place for entity in found for place in range(entity.first, entity.last + 1)]
    assert covered == [place for place, tag in enumerate(tags) if tag != "O"]
    assert all(tags[place][2:] == entity.kind for entity in found for place in range(entity.first, entity.last + 1))


@given(tags=tags_of_bio)
def test_the_schemes_say_the_same(tags: list[str]) -> None:
    """The entities of any tags, written in each scheme, are the same entities."""
    found = entities(tags)
    iob1, bio, iobes = (["O"] * len(tags) for _ in range(3))
    before = Entity(-9, -9, "")
    for entity in found:
        touches = before.last + 1 == entity.first and before.kind == entity.kind
        for place in range(entity.first, entity.last + 1):
            is_first, is_last = place == entity.first, place == entity.last
            bio[place] = ("B-" if is_first else "I-") + entity.kind
            iob1[place] = ("B-" if is_first and touches else "I-") + entity.kind
            ways = {(True, True): "S-", (True, False): "B-", (False, True): "E-", (False, False): "I-"}
            iobes[place] = ways[is_first, is_last] + entity.kind
        before = entity
    assert entities(bio) == entities(iob1) == entities(iobes) == found


def test_scores_by_hand() -> None:
    """Three sentences; of 11 tokens 7 bear the right tag.

    true    B-per I-per O | B-loc   I-loc O B-per | B-org B-org O   O
    found   B-per I-per O | B-loc   O     O I-per | B-org I-org O   B-loc
    right     *     *   * |   *           *       |   *         *
    there: per 0-1; loc 0-1, per 3; org 0, org 1            5: per 2, loc 1, org 2
    found: per 0-1; loc 0, per 3; org 0-1, loc 3            5: per 2, loc 2, org 1
    both:  per 0-1; per 3 (one token, I or B); none         2: per 2
    """
    scores = score_entities(
        [
            (["B-per", "I-per", "O"], ["B-per", "I-per", "O"]),
            (["B-loc", "I-loc", "O", "B-per"], ["B-loc", "O", "O", "I-per"]),
            (["B-org", "B-org", "O", "O"], ["B-org", "I-org", "O", "B-loc"]),
        ]
    )
    assert (scores.tokens, scores.correct_tokens) == (11, 7)
    assert scores.by_kind == {"loc": Matches(1, 2, 0), "org": Matches(2, 1, 0), "per": Matches(2, 2, 2)}
    assert scores.overall == Matches(5, 5, 2)
    assert scores.overall.f1 == pytest.approx(2 / 5, rel=1e-15)
    assert scores.token_accuracy == 7 / 11
    assert render_entities(scores) == (
        "entity  precision    recall        F1  there  found  correct\n"
        "loc        0.00 %    0.00 %    0.00 %      1      2        0\n"
        "org        0.00 %    0.00 %    0.00 %      2      1        0\n"
        "per      100.00 %  100.00 %  100.00 %      2      2        2\n"
        "all       40.00 %   40.00 %   40.00 %      5      5        2\n"
    )


def test_an_entity_ends_with_its_sentence() -> None:
    scores = score_entities([(["B-x"], ["B-x"]), (["I-x"], ["I-x"])])
    assert scores.overall == Matches(2, 2, 2)


def test_half_an_entity_and_one_of_another_type_are_wrong() -> None:
    for wrong in ("B-x I-x I-x", "O I-x O", "B-x O O", "B-y I-y O", "B-x I-y O", "B-x B-x O"):
        assert score_entities([(["B-x", "I-x", "O"], wrong.split())]).overall.correct == 0


def test_nothing() -> None:
    scores = score_entities([])
    assert scores == EntityScores(0, 0, {})
    assert (scores.token_accuracy, scores.overall) == (0.0, Matches(0, 0, 0))
    with pytest.raises(ValueError, match="zip"):
        score_entities([(["O"], [])])


def reference_counts(pairs: list[tuple[Sequence[str], Sequence[str]]], kind: str) -> Matches:
    """By rule (4), on one long text with O between sentences, from the edges of the entities."""
    gold_text: list[str] = []
    found_text: list[str] = []
    for gold, found in pairs:
        gold_text += [*gold, "O"]
        found_text += [*found, "O"]
    spans = []
    for tags in (gold_text, found_text):
        begins, ends = chunk_edges(tags)
        of_kind = {(b, min(e for e in ends if e > b)) for b in begins if tags[b][2:] == kind}
        spans.append(of_kind)
    return Matches(len(spans[0]), len(spans[1]), len(spans[0] & spans[1]))


@given(pairs=sentences)
def test_counts_against_the_definition(pairs: list[tuple[Sequence[str], Sequence[str]]]) -> None:
    scores = score_entities(pairs)
    tags = [both for gold, found in pairs for both in zip(gold, found, strict=True)]
    assert scores.tokens == len(tags)
    assert scores.correct_tokens == sum(a == b for a, b in tags)
    for kind in ("x", "y"):
        assert scores.by_kind.get(kind, Matches()) == reference_counts(pairs, kind)
    own = score_entities((gold, gold) for gold, _ in pairs).overall
    assert own.gold == own.found == own.correct == scores.overall.gold


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-x", "I-x"], True),
        (["I-x"], True),
        (["O", "B", "I"], True),
        (["S-a-b", "U-x", "L-x", "E-x"], True),
        (["O"], False),
        ([], False),
        (["NN", "VB", "O"], False),
        (["O", "B-x", "LOC"], False),
        (["E", "S"], False),
    ],
)
def test_which_tags_mark_entities(tags: list[str], expected: bool) -> None:
    assert names_entities(tags) is expected


def test_the_figures_that_conlleval_prints() -> None:
    """The output described with the CoNLL-2000 data: 459 phrases, 539 found, 371 correct; 68.83 %, 80.83 %, 74.35."""
    m = Matches(459, 539, 371)
    assert [f"{100 * figure:.2f}" for figure in (m.precision, m.recall, m.f1)] == ["68.83", "80.83", "74.35"]
