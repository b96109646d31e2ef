"""A source of text whose entropy is known exactly.

A Markov source of order k writes lines over a few letters. The next token, a letter or the end of the line
(EOS), depends on the last k letters of the line, fewer near its start. So with x_c the expected number of
times a line passes the context c and H_c the entropy of the token that follows,

    (1) x_c = [c is the empty context] + sum over contexts b and letters s with b s -> c of x_b P(s | b)
    (2) nats per line  = sum over c of x_c H_c
    (3) tokens per line, EOS counted = sum over c of x_c

and the entropy rate is (2) / (3). No model can have a lower expected cross entropy, in nats a
token, than that.
"""

import math
import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

EOS = ""


@dataclass(frozen=True)
class MarkovSource:
    """A Markov source of lines.

    Attributes:
        order: how many letters of the line the next token depends on.
        probabilities: for each context, the letters before, the probability of each token, EOS among them.
    """

    order: int
    probabilities: dict[str, dict[str, float]]

    @classmethod
    def draw(cls, letters: str = "abcd", order: int = 2, mean_length: float = 12.0, seed: int = 0) -> "MarkovSource":
        """A source with drawn probabilities, uneven enough that the context matters.

        A line is never empty: the first token is a letter. After that the line ends with probability
        1 / mean_length, so that lines have mean_length letters on average.
        """
        rng = random.Random(seed)
        probabilities = {}
        contexts = [""]
        for context in contexts:  # grows while we walk it
            end = 1.0 / mean_length if context else 0.0
            weights = [rng.random() ** 3 + 0.02 for _ in letters]
            probabilities[context] = {
                letter: (1.0 - end) * weight / sum(weights) for letter, weight in zip(letters, weights, strict=True)
            }
            probabilities[context][EOS] = end
            followers = [_follow(context, letter, order) for letter in letters]
            contexts.extend(follower for follower in followers if follower not in contexts)
        return cls(order, probabilities)

    @cached_property
    def visits(self) -> dict[str, float]:
        """Equation (1): how often a line passes each context, on average."""
        contexts = list(self.probabilities)
        place = {context: i for i, context in enumerate(contexts)}
        moves = np.zeros((len(contexts), len(contexts)))
        for context, tokens in self.probabilities.items():
            for token, probability in tokens.items():
                if token != EOS and probability > 0.0:
                    moves[place[context], place[_follow(context, token, self.order)]] += probability
        start = np.zeros(len(contexts))
        start[place[""]] = 1.0
        visits = np.linalg.solve(np.eye(len(contexts)) - moves.T, start)
        return {context: float(visits[i]) for context, i in place.items()}

    @property
    def nats_per_line(self) -> float:
        """Equation (2): the entropy of a line."""
        return sum(
            visits * -sum(p * math.log(p) for p in self.probabilities[context].values() if p > 0.0)
            for context, visits in self.visits.items()
        )

    @property
    def tokens_per_line(self) -> float:
        """Equation (3): the expected number of tokens of a line, EOS counted."""
        return sum(self.visits.values())

    @property
    def nats_per_token(self) -> float:
        """The entropy rate, EOS counted."""
        return self.nats_per_line / self.tokens_per_line

    def lines(self, count: int, seed: int = 0) -> list[str]:
        """Draw lines, without newlines."""
        rng = random.Random(seed)
        return [self._line(rng) for _ in range(count)]

    def nats(self, line: str) -> float:
        """-log P(line), its end included."""
        return -sum(
            math.log(self.probabilities[line[max(0, i - self.order) : i]][token])
            for i, token in enumerate([*line, EOS])
        )

    def _line(self, rng: random.Random) -> str:
        line = ""
        while True:
            tokens = self.probabilities[line[max(0, len(line) - self.order) :]]
            (token,) = rng.choices(list(tokens), list(tokens.values()))
            if token == EOS:
                return line
            line += token


def _follow(context: str, letter: str, order: int) -> str:
    """The context after `letter` is added to `context`."""
    grown = context + letter
    return grown[max(0, len(grown) - order) :]
