"""The source of known entropy against hand-computed figures, sums over all short lines, and its own draws."""

import itertools
import math

import pytest

from tests.known_source import EOS, MarkovSource


def test_a_source_without_memory_has_the_entropy_of_its_die() -> None:
    source = MarkovSource(0, {"": {"a": 0.5, "b": 0.25, EOS: 0.25}})
    assert source.tokens_per_line == pytest.approx(4.0, rel=1e-14)  # 1 / P(EOS)
    assert source.nats_per_token == pytest.approx(1.5 * math.log(2), rel=1e-14)  # 1/2 * 1 + 1/4 * 2 + 1/4 * 2 bits
    assert source.nats("ab") == pytest.approx(5 * math.log(2), rel=1e-14)


def test_a_source_of_first_order_by_hand() -> None:
    # The first letter is a. After a: b always. After b: a or the end, evenly. Lines ab, abab, ... with 1/2,
    # 1/4, ...
    source = MarkovSource(1, {"": {"a": 1.0}, "a": {"b": 1.0}, "b": {"a": 0.5, EOS: 0.5}})
    assert source.visits == pytest.approx({"": 1.0, "a": 2.0, "b": 2.0}, rel=1e-14)
    assert source.nats_per_line == pytest.approx(2 * math.log(2), rel=1e-14)
    assert source.nats_per_token == pytest.approx(2 * math.log(2) / 5, rel=1e-14)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_entropy_is_the_sum_over_all_lines(order: int) -> None:
    source = MarkovSource.draw("ab", order, mean_length=1.5, seed=3)
    if order == 0:
        source = MarkovSource(0, {"": {"a": 0.3, "b": 0.1, EOS: 0.6}})
    total = nats = tokens = 0.0
    for length in range(14):
        for letters in itertools.product("ab", repeat=length):
            line = "".join(letters)
            if length == 0 and order > 0:
                continue  # such a line has probability 0
            probability = math.exp(-source.nats(line))
            total += probability
            nats += probability * source.nats(line)
            tokens += probability * (length + 1)
    assert total == pytest.approx(1.0, abs=1e-4)
    assert nats == pytest.approx(source.nats_per_line, rel=1e-3)
    assert tokens == pytest.approx(source.tokens_per_line, rel=1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_the_mean_over_drawn_lines_approaches_the_entropy(order: int) -> None:
    source = MarkovSource.draw("abcd", order, mean_length=12.0, seed=order)
    lines = source.lines(20_000, seed=1)
    assert all(lines)
    assert sum(map(len, lines)) / len(lines) == pytest.approx(12.0, rel=0.03)
    # The excess of a line over the rate has mean 0; allow four standard errors.
    excess = [source.nats(line) - source.nats_per_token * (len(line) + 1) for line in lines]
    error = math.sqrt(sum(e * e for e in excess)) / len(excess)
    assert abs(sum(excess) / len(excess)) < 4 * error
    assert error / source.nats_per_line < 0.002


def test_context_matters() -> None:
    """A model that knew only how frequent each token is would lose clearly against the source."""
    source = MarkovSource.draw("abcd", 2, seed=0)
    lines = source.lines(5_000)
    tokens = [token for line in lines for token in [*line, EOS]]
    shares = [tokens.count(token) / len(tokens) for token in set(tokens)]
    assert -sum(share * math.log(share) for share in shares) > source.nats_per_token + 0.1


def test_same_seed_same_text() -> None:
    assert MarkovSource.draw(seed=5) == MarkovSource.draw(seed=5)
    assert MarkovSource.draw(seed=5) != MarkovSource.draw(seed=6)
    source = MarkovSource.draw(seed=5)
    assert source.lines(10, seed=2) == source.lines(10, seed=2) != source.lines(10, seed=3)
