"""Write agreement.txt: sentences whose verb agrees with a noun far before it.

    the cat , which already saw the duck near the dogs , was full
    the cats , which already saw the duck near the dogs , were full

The number of the subject is told once, at the second word, and asked for once, at `was` or `were`. What
stands between names other nouns of either number, and may be of any length. A model that carries the number
over the clause gives the right verb the whole probability; one that listens to the nearest noun does not.

The sentences come from the probabilistic grammar below. A symbol in capitals is rewritten as one of its
choices, each with the probability in front of it; everything else is a word of the text. No sentence has two
derivations, so that

    (1) P(sentence) = product of the probabilities of its choices
    (2) x_A = [A is SENTENCE] + sum over symbols B of x_B * (expected number of A in a rewriting of B)
    (3) nats per sentence = sum over A of x_A * (entropy of A's choice)
    (4) words per sentence, its end counted = 1 + sum over A of x_A * (expected words in a rewriting of A)

where x_A is how often A is rewritten in a sentence, on average. (3) / (4) is the entropy of a word: no model
has a lower expected cross entropy.

Usage: python make_agreement.py    writes agreement.txt beside itself and prints its figures.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path

SENTENCES = 10_000
SEED = 1

Choices = list[tuple[float, list[str]]]

ANIMALS = ["bear", "bird", "cat", "cow", "dog", "duck", "frog", "goat", "hen", "horse", "pig", "rabbit"]
VERBS = ["chased", "fed", "followed", "found", "heard", "liked", "met", "saw"]
ADVERBS = ["already", "never", "often", "once"]
PLACES = ["behind", "beside", "near", "under"]
ADJECTIVES = ["asleep", "cold", "full", "happy", "hungry", "quiet", "tired", "wet"]


def _evenly(words: list[str]) -> Choices:
    return [(1.0 / len(words), [word]) for word in words]


# What a symbol becomes, and how probable that is.
GRAMMAR: dict[str, Choices] = {
    "SENTENCE": [(0.5, ["the", "SINGULAR", "CLAUSE", "was", "ADJECTIVE"]),
                 (0.5, ["the", "PLURAL", "CLAUSE", "were", "ADJECTIVE"])],
    "CLAUSE": [(0.25, []),
               (0.75, [",", "which", "ADVERB", "VERB", "NOUN", "PLACES", ","])],
    "ADVERB": [(0.5, []), (0.5, ["SOME_ADVERB"])],
    "PLACES": [(0.5, []), (0.5, ["PLACE", "NOUN", "PLACES"])],
    "NOUN": [(0.5, ["the", "SINGULAR"]), (0.5, ["the", "PLURAL"])],
    "SINGULAR": _evenly(ANIMALS),
    "PLURAL": _evenly([animal + "s" for animal in ANIMALS]),
    "VERB": _evenly(VERBS),
    "SOME_ADVERB": _evenly(ADVERBS),
    "PLACE": _evenly(PLACES),
    "ADJECTIVE": _evenly(ADJECTIVES),
}  # fmt: skip


def choose(rng: random.Random, choices: Choices) -> list[str]:
    """Draw a rewriting by its probability."""
    draw = rng.random()
    for probability, rewriting in choices[:-1]:
        draw -= probability
        if draw < 0.0:
            return rewriting
    return choices[-1][1]


def generate(rng: random.Random, symbol: str = "SENTENCE") -> Iterator[str]:
    """Yield the words of a random rewriting of `symbol`."""
    if symbol in GRAMMAR:
        for part in choose(rng, GRAMMAR[symbol]):
            yield from generate(rng, part)
    else:
        yield symbol


def make_text(count: int = SENTENCES, seed: int = SEED) -> str:
    """Draw sentences, one a line. `random.Random.random` draws the same numbers in every version of Python."""
    rng = random.Random(seed)
    return "".join(" ".join(generate(rng)) + "\n" for _ in range(count))


def rewritings() -> dict[str, float]:
    """Equation (2): how often each symbol is rewritten in a sentence, on average. Solved by iteration."""
    counts = dict.fromkeys(GRAMMAR, 0.0)
    while True:
        new = dict.fromkeys(GRAMMAR, 0.0)
        new["SENTENCE"] = 1.0
        for symbol, choices in GRAMMAR.items():
            for probability, rewriting in choices:
                for part in rewriting:
                    if part in GRAMMAR:
                        new[part] += counts[symbol] * probability
        if new == counts:
            return counts
        counts = new


def nats_per_sentence() -> float:
    """Equation (3): the entropy of a sentence."""
    return sum(
        count * -sum(probability * math.log(probability) for probability, _ in GRAMMAR[symbol])
        for symbol, count in rewritings().items()
    )


def words_per_sentence() -> float:
    """Equation (4): the expected number of words, the end of the sentence counted as one."""
    return 1.0 + _expected_size(1, 0)


def characters_per_sentence() -> float:
    """The expected number of characters: letters, commas, spaces, and the end counted as one."""
    return _expected_size(1, 1)  # after each word comes a space, or the end


def _expected_size(per_word: int, per_letter: int) -> float:
    """The expected sum over the words of a sentence of per_word + per_letter * (length of the word)."""
    return sum(
        count * probability * (per_word + per_letter * len(part))
        for symbol, count in rewritings().items()
        for probability, rewriting in GRAMMAR[symbol]
        for part in rewriting
        if part not in GRAMMAR
    )


def derivations(words: list[str], symbol: str = "SENTENCE", start: int = 0) -> Iterator[tuple[int, float]]:
    """Yield, for each way in which `symbol` becomes words[start:end], the end and -log of its probability."""
    if symbol not in GRAMMAR:
        if start < len(words) and words[start] == symbol:
            yield start + 1, 0.0
        return
    for probability, rewriting in GRAMMAR[symbol]:
        partial = [(start, -math.log(probability))]
        for part in rewriting:
            partial = [
                (end, so_far + nats) for middle, so_far in partial for end, nats in derivations(words, part, middle)
            ]
        yield from partial


def sentence_nats(sentence: str) -> float:
    """Equation (1): -log P(sentence).

    Raises:
        ValueError: the sentence has no derivation, or more than one.
    """
    words = sentence.split(" ")
    whole = [nats for end, nats in derivations(words) if end == len(words)]
    if len(whole) != 1:
        raise ValueError(f"{len(whole)} derivations: {sentence}")
    return whole[0]


def figures(text: str) -> list[tuple[str, float, float]]:
    """Each figure of the README: its name, of the grammar, of `text` under the grammar."""
    sentences = text.splitlines()
    words = sum(len(sentence.split(" ")) + 1 for sentence in sentences)
    nats = math.fsum(map(sentence_nats, sentences))
    return [
        ("nats per sentence", nats_per_sentence(), nats / len(sentences)),
        ("words per sentence", words_per_sentence(), words / len(sentences)),
        ("characters per sentence", characters_per_sentence(), len(text) / len(sentences)),
        ("nats per word", nats_per_sentence() / words_per_sentence(), nats / words),
        ("nats per character", nats_per_sentence() / characters_per_sentence(), nats / len(text)),
    ]


if __name__ == "__main__":
    made = make_text()
    Path(__file__).with_name("agreement.txt").write_text(made, encoding="ascii", newline="\n")
    for name, of_grammar, of_text in figures(made):
        print(f"{name:24} grammar {of_grammar:.6f}  text {of_text:.6f}")  # noqa: T201
