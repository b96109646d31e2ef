"""The corpora that ship for the tasks: what their scripts write, and the figures in corpora/README.md."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from charlm.evaluation.entities import entities, names_entities, score_entities
from charlm.text.examples import Sentence, read_labelled, read_pairs, read_sentences
from tests.corpora_files import CORPORA, README, load, text

make_towns, make_visits, make_sounds = load("make_towns"), load("make_visits"), load("make_sounds")


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return list(read_sentences(str(CORPORA / "visits.conll")))


@pytest.mark.parametrize(
    ("name", "script"), [("towns.tsv", make_towns), ("visits.conll", make_visits), ("sounds.tsv", make_sounds)]
)
def test_a_corpus_is_what_its_script_writes(name: str, script: ModuleType) -> None:
    assert text(name) == script.make_text()
    assert len(text(name)) < 150_000


def test_the_towns_of_each_country() -> None:
    towns = list(read_labelled(str(CORPORA / "towns.tsv")))
    assert len(towns) == make_towns.TOWNS == text("towns.tsv").count("\n")
    counts = Counter(town.label for town in towns)
    assert counts.keys() == make_towns.COUNTRIES.keys()
    assert min(counts.values()) >= 300
    for label, country in make_towns.COUNTRIES.items():
        assert f"| {label} | {country.probability * 100:.0f} % | {counts[label]} |" in README
    assert all(re.fullmatch("[A-Z][a-z]+", town.text) for town in towns)
    twice = sum(count - 1 for count in Counter((town.label, town.text) for town in towns).values())
    assert f"{twice} towns are there already" in README


def test_the_best_accuracy_on_towns() -> None:
    assert f"{100 * make_towns.best_accuracy(text('towns.tsv')):.1f} % of these" in README


def test_the_probability_of_a_town_by_hand() -> None:
    country = make_towns.Country(1.0, ["ma", "mana"], ["na", "a"], ["na", "no"])
    none, one, two = make_towns.MIDDLES
    # Two of each part: a way with m middles has a probability of P(m) / (4 * 2**m). ma|na:
    assert make_towns.name_probability("Mana", country) == pytest.approx(none / 4, rel=1e-14)
    # mana|na, ma|na|na:
    assert make_towns.name_probability("Manana", country) == pytest.approx(none / 4 + one / 8, rel=1e-14)
    # mana|a|na, ma|na|a|na:
    assert make_towns.name_probability("Manaana", country) == pytest.approx(one / 8 + two / 16, rel=1e-14)
    assert make_towns.name_probability("Mano", country) == pytest.approx(none / 4, rel=1e-14)
    assert make_towns.name_probability("Man", country) == 0.0


@pytest.mark.parametrize("label", make_towns.COUNTRIES)
def test_the_probabilities_of_a_countrys_towns_sum_to_one(label: str) -> None:
    """A small country with some of its parts, so that its names can be listed."""
    country = make_towns.COUNTRIES[label]
    few = make_towns.Country(1.0, country.beginnings[:4], country.middles[:3], country.endings[:4])
    names = {
        "".join(parts)
        for middles in range(3)
        for parts in product(few.beginnings, *[few.middles] * middles, few.endings)
    }
    assert sum(make_towns.name_probability(name, few) for name in names) == pytest.approx(1.0, rel=1e-12)


def test_the_best_guess_is_right_as_often_as_bayes_says() -> None:
    """In expectation as often as the guesses' probabilities sum to; 20,000 towns, within 5 standard deviations."""
    towns = [line.split("\t") for line in make_towns.make_text(20_000, 7).splitlines()]
    expected = variance = right = 0.0
    for label, name in towns:
        weights = {
            each: country.probability * make_towns.name_probability(name, country)
            for each, country in make_towns.COUNTRIES.items()
        }
        guess = make_towns.best_guess(name)
        assert weights[guess] == max(weights.values())
        probability = weights[guess] / sum(weights.values())
        expected += probability
        variance += probability * (1 - probability)
        right += guess == label
    assert abs(right - expected) < 5 * variance**0.5
    assert expected / len(towns) == pytest.approx(0.974, abs=0.003)
    assert "97.4 % of new ones" in README


def test_the_sentences_and_their_entities(sentences: list[Sentence]) -> None:
    assert len(sentences) == make_visits.SENTENCES
    scores = score_entities((sentence.tags, sentence.tags) for sentence in sentences)
    assert names_entities(tag for sentence in sentences for tag in sentence.tags)
    kinds = {kind: matches.gold for kind, matches in scores.by_kind.items()}
    assert kinds.keys() == {"person", "place"}
    assert (
        f"{len(sentences):,} sentences of {scores.tokens:,} tokens, with {kinds['person']:,} persons and "
        f"{kinds['place']:,} places"
    ) in README
    for sentence in sentences:
        assert sentence.tokens[0][0].isupper()
        for entity in entities(sentence.tags):
            assert sentence.tags[entity.first].startswith("B-")
            assert all(token.istitle() for token in sentence.tokens[entity.first : entity.last + 1])


def test_there_are_always_names_that_were_never_seen(sentences: list[Sentence]) -> None:
    """Of the tokens of names in the last tenth, so many are not in the first nine."""
    cut = len(sentences) * 9 // 10
    known = {token for sentence in sentences[:cut] for token in sentence.tokens}
    names = [
        token
        for sentence in sentences[cut:]
        for token, tag in zip(sentence.tokens, sentence.tags, strict=True)
        if tag != "O"
    ]
    unseen = sum(token not in known for token in names)
    assert f"{unseen} of the {len(names)}" in README
    assert unseen / len(names) > 0.2


def test_spelling_does_not_tell_all(sentences: list[Sentence]) -> None:
    kinds: dict[str, set[str]] = {}
    for sentence in sentences:
        for token, tag in zip(sentence.tokens, sentence.tags, strict=True):
            if tag != "O":
                kinds.setdefault(token, set()).add(tag[2:])
    assert sum(len(found) == 2 for found in kinds.values()) > 50
    assert {"Old", "Port"} <= kinds.keys()


def test_words_and_their_sounds() -> None:
    pairs = list(read_pairs(str(CORPORA / "sounds.tsv")))
    words = [pair.source for pair in pairs]
    assert len(words) == len(set(words)) == make_sounds.WORDS
    phones = {phone for pair in pairs for phone in pair.target.split(" ")}
    letters = set("".join(words))
    assert f"{len(letters)} letters and {len(phones)} phones" in README
    assert any(len(pair.target.split(" ")) > len(pair.source) for pair in pairs)
    assert sum(len(pair.target.split(" ")) < len(pair.source) for pair in pairs) > 1000
    assert any(word.endswith("e") for word in words)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("shate", "sh ei t"),  # rule 1, pair sh
        ("frotty", "f r o t i"),  # equal consonants, y at the end
        ("mete", "m ii t"),
        ("tint", "t i n t"),
        ("tinte", "t i n t e"),  # two consonants: the e is heard
        ("taite", "t ei t e"),  # two vowels: too
        ("ate", "a t e"),  # too short
        ("city", "s i t i"),
        ("cat", "k a t"),
        ("gem", "j e m"),
        ("gum", "g u m"),
        ("laggy", "l a j i"),  # the second g decides
        ("phuck", "f u k"),
        ("quick", "k w i k"),
        ("yaxe", "y ei k s"),
        ("cece", "s ii s"),  # the e that is not heard still softens
        ("booloa", "b uu l ou"),
        ("cowthing", "k au th i ng"),
        ("treesay", "t r ii s ei"),
        ("beam", "b ii m"),
    ],
)
def test_sounds_by_hand(word: str, phones: str) -> None:
    assert " ".join(make_sounds.sounds(word)) == phones


@pytest.mark.parametrize("script", [make_towns, make_visits, make_sounds])
def test_the_examples_in_a_script_follow_its_rules(script: ModuleType) -> None:
    text = (
        Path(str(script.__file__)).read_text("utf-8").split('"""')[1]
    )  # Python 3.13 has blanks for a docstring's tabs
    example = [line[4:] for line in text.splitlines() if line.startswith("    ") and "\t" in line]
    assert example
    for line in example:
        left, right = line.split("\t")
        if script is make_sounds:
            assert make_sounds.sounds(left) == right.split(" ")
        elif script is make_towns:
            assert make_towns.name_probability(right, make_towns.COUNTRIES[left]) > 0.0
            assert make_towns.best_guess(right) == left
        else:
            assert right in ("O", "B-person", "I-person", "B-place", "I-place")
