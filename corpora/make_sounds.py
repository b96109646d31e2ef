"""Write sounds.tsv: invented words, a tab, and how they sound, phone by phone.

    shate	sh ei t
    frotty	f r o t i

The words are put together from the syllables below. Their sounds follow from the spelling by the rules of `sounds`,
which are much like those of English but have no exceptions: a model that has understood them makes no error on new
words. Some letters are not heard, some stand for two sounds, some sound otherwise before another letter, and a last e
changes the vowel two letters before it.

Usage: python make_sounds.py    writes sounds.tsv beside itself.
"""

import random
from collections.abc import Sequence
from pathlib import Path

WORDS = 2500
SEED = 1
SYLLABLES = (1, 2, 2, 3)  # evenly one of these


def _parts(text: str) -> list[str]:
    return text.split()


BEGINNINGS = _parts(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p ph pl pr qu r s sh sl sp st str t th tr v w y z"
)
MIDDLES = _parts("a e i o u a e i o u ai ay ea ee oa oo ow")
INNER_ENDINGS = ["", "", "", *_parts("g l m n p r s t")]
ENDINGS = ["", "", *_parts("b ck d ff g k ll m n nd ng nt p r sh ss st t th tt x")]
LAST_E = 0.5  # of the words where it would not be heard
LAST_Y = 0.1  # of the others that end with a consonant

VOWELS = "aeiou"
SOFTENING = "eiy"

# Longest first. A pair of equal consonants is one; c, g, y and a last e have rules of their own.
PAIRS = {
    "sh": ["sh"], "ch": ["ch"], "th": ["th"], "ng": ["ng"], "ph": ["f"], "ck": ["k"], "qu": ["k", "w"],
    "ai": ["ei"], "ay": ["ei"], "ea": ["ii"], "ee": ["ii"], "oa": ["ou"], "oo": ["uu"], "ow": ["au"],
}  # fmt: skip
LONG = {"a": "ei", "e": "ii", "i": "ai", "o": "ou", "u": "uu"}


def pick(rng: random.Random, parts: Sequence[str]) -> str:
    """Draw evenly. `random.Random.random` draws the same numbers in every version of Python."""
    return parts[int(rng.random() * len(parts))]


def make_word(rng: random.Random) -> str:
    """Draw a word."""
    syllables = SYLLABLES[int(rng.random() * len(SYLLABLES))]
    word = ""
    for syllable in range(1, syllables + 1):
        endings = ENDINGS if syllable == syllables else INNER_ENDINGS
        word += pick(rng, BEGINNINGS) + pick(rng, MIDDLES) + pick(rng, endings)
    if word[-1] in VOWELS + "yw":
        return word
    if word[-2] in VOWELS and word[-3] not in VOWELS and rng.random() < LAST_E:
        return word + "e"
    return word + "y" if rng.random() < LAST_Y else word


def sounds(word: str) -> list[str]:
    """The phones of a word, by rules that go from left to right.

    1. A last e after one consonant after one vowel is not heard, and that vowel is long: a ei, e ii, i ai, o ou, u uu.
    2. Pairs: sh, ch, th, ng are one sound; ph is f, ck is k, qu is k w; ai and ay are ei, ea and ee ii, oa ou, oo uu,
       ow au.
    3. Two equal consonants are one, by the rule for the second.
    4. c is s before e, i, y, else k; g is j before e, i, y, else g.
    5. y is y before a vowel, else i; x is k s; any other letter is itself.
    """
    is_long = (
        len(word) > 3
        and word[-1] == "e"
        and word[-2] not in VOWELS + "y"
        and word[-3] in VOWELS
        and word[-4] not in VOWELS
    )
    heard = word[:-1] if is_long else word
    phones: list[str] = []
    place = 0
    while place < len(heard):
        letter, after = heard[place], word[place + 1 : place + 2]
        if is_long and place == len(heard) - 2:
            phones.append(LONG[letter])
        elif heard[place : place + 2] in PAIRS:
            phones += PAIRS[heard[place : place + 2]]
            place += 1
        elif letter == after and letter not in VOWELS:
            pass
        elif letter in "cg":
            soft, hard = ("s", "k") if letter == "c" else ("j", "g")
            phones.append(soft if after and after in SOFTENING else hard)
        elif letter == "y":
            phones.append("y" if after and after in VOWELS else "i")
        else:
            phones += ["k", "s"] if letter == "x" else [letter]
        place += 1
    return phones


def make_text(count: int = WORDS, seed: int = SEED) -> str:
    """Draw words, none twice, and write each with its sounds, one a line."""
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        words[make_word(rng)] = None
    return "".join(f"{word}\t{' '.join(sounds(word))}\n" for word in words)


if __name__ == "__main__":
    Path(__file__).with_name("sounds.tsv").write_text(make_text(), encoding="ascii", newline="\n")
