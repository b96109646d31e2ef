"""The corpora that ship: their form, the generator of agreement.txt, and the figures in corpora/README.md."""

import math
import random
import re

import pytest

from tests.corpora_files import README, load, text

make_agreement = load("make_agreement")


@pytest.fixture(scope="module")
def agreement() -> str:
    return text("agreement.txt")


def test_dinosaurs_are_names_sorted_and_unique() -> None:
    names = text("dinosaurs.txt").removesuffix("\n").split("\n")
    assert len(names) >= 1000
    assert [name for name in names if not re.fullmatch("[a-z]+", name)] == []
    assert names == sorted(set(names))
    assert set("".join(names)) == set("abcdefghijklmnopqrstuvwxyz")
    assert {"tyrannosaurus", "iguanodon", "yi"} <= set(names)


@pytest.mark.parametrize("name", ["dinosaurs.txt", "agreement.txt", "towns.tsv", "visits.conll", "sounds.tsv"])
def test_the_readme_states_the_size_of_each_file(name: str) -> None:
    found = text(name)
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}`")]
    lines = found.count("\n")
    assert row.endswith(f" {lines:,} | {len(found):,} |")


def test_agreement_is_what_its_generator_writes(agreement: str) -> None:
    assert agreement == make_agreement.make_text()
    assert len(agreement) < 800_000


def test_the_readme_states_the_figures(agreement: str) -> None:
    for name, of_grammar, of_text in make_agreement.figures(agreement):
        assert f"| {name} | {of_grammar:.6f} | {of_text:.6f} |" in README


def test_the_entropy_by_hand() -> None:
    """Straight from the README's account of the grammar, without the generator's tables."""
    ln = math.log
    noun = ln(2) + ln(12)
    places = ln(2) / (1 / 2)  # nats of a geometric series of even choices: 2 choices on average
    clause = (ln(2) + ln(4) / 2) + ln(8) + noun + places + 1 * (ln(4) + noun)
    sentence = noun + (ln(4) / 4 + ln(4 / 3) * 3 / 4) + 3 / 4 * clause + ln(8)
    assert make_agreement.nats_per_sentence() == pytest.approx(sentence, rel=1e-12)
    words = 4 + 3 / 4 * (4 + 1 / 2 + 2 + 1 * 3) + 1
    assert make_agreement.words_per_sentence() == pytest.approx(words, rel=1e-12)


def test_probabilities_of_sentences_by_hand() -> None:
    nats = make_agreement.sentence_nats
    assert nats("the cats were full") == pytest.approx(math.log(2 * 12 * 4 * 8), rel=1e-14)
    # number, subject; a clause; no adverb, verb; number, object; a place: which, number, which; no more; adjective
    probability = 1 / 2 / 12 * 3 / 4 * 1 / 2 / 8 / 2 / 12 * (1 / 2 / 4 / 2 / 12) * 1 / 2 / 8
    line = "the cat , which saw the duck near the dogs , was full"
    assert nats(line) == pytest.approx(-math.log(probability), rel=1e-14)


def test_the_sentences_without_a_clause_have_a_quarter_of_the_probability() -> None:
    total = sum(
        math.exp(-make_agreement.sentence_nats(f"the {noun} {verb} {adjective}"))
        for ending, verb in (("", "was"), ("s", "were"))
        for noun in (animal + ending for animal in make_agreement.ANIMALS)
        for adjective in make_agreement.ADJECTIVES
    )
    assert total == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "the cat were full",
        "the cats , which saw the duck , was full",
        "the cat , which saw the duck was full",
        "the cat was full was",
        "the cat",
    ],
)
def test_what_the_grammar_cannot_say_is_refused(sentence: str) -> None:
    with pytest.raises(ValueError, match="0 derivations"):
        make_agreement.sentence_nats(sentence)


def test_the_choices_of_each_symbol_sum_to_one() -> None:
    for choices in make_agreement.GRAMMAR.values():
        assert math.fsum(probability for probability, _ in choices) == pytest.approx(1.0, rel=1e-14)


def test_the_text_is_as_probable_as_the_entropy_says(agreement: str) -> None:
    """Also proves every sentence unambiguous. The mean of 10,000 sentences, within four standard errors."""
    nats = [make_agreement.sentence_nats(sentence) for sentence in agreement.splitlines()]
    expected = make_agreement.nats_per_sentence()
    error = math.sqrt(sum((n - expected) ** 2 for n in nats)) / len(nats)
    assert abs(sum(nats) / len(nats) - expected) < 4 * error
    assert error / expected < 0.01


def test_the_verb_agrees_with_the_subject_and_the_nearest_noun_does_not_help(agreement: str) -> None:
    sentences = [sentence.split(" ") for sentence in agreement.splitlines()]
    clauses = others = 0
    distances = set()
    for words in sentences:
        (verb,) = [i for i, word in enumerate(words) if word in ("was", "were")]
        plural = words[verb] == "were"
        assert words[1].endswith("s") == plural
        distances.add(verb - 1)
        if verb > 2:
            clauses += 1
            others += words[verb - 2].endswith("s") != plural
    assert f"in {others:,} of\nthe {clauses:,} sentences with a clause" in README
    assert len(distances) > 20
    assert len({word for words in sentences for word in words}) == 53
    assert "there are 53 of them" in README


def test_frequencies_of_drawn_rewritings_follow_their_probabilities() -> None:
    """Chi-squared, 7 degrees of freedom: above 24.3 once in a thousand seeds; the seed is fixed."""
    rng, choices = random.Random(7), make_agreement.GRAMMAR["ADJECTIVE"]
    drawn = [make_agreement.choose(rng, choices)[0] for _ in range(8_000)]
    assert sum((drawn.count(word) - 1000) ** 2 / 1000 for _, (word,) in choices) < 24.3
