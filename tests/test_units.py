from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.units import LOG_BASES, from_nats, nats_to_bits, perplexity


def test_a_fair_coin_is_one_bit_and_a_die_of_ten_one_decimal_digit() -> None:
    assert nats_to_bits(-math.log(0.5)) == 1.0
    assert from_nats(math.log(10.0), "10") == 1.0
    assert from_nats(1.5, "e") == 1.5


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.sampled_from(sorted(LOG_BASES)))
def test_a_change_of_base_is_a_change_of_unit(nats: float, base: str) -> None:
    assert from_nats(nats, base) * LOG_BASES[base] == pytest.approx(nats, rel=1e-15, abs=1e-300)


def test_the_bases_are_those_that_are_named() -> None:
    assert {base: math.exp(nats) for base, nats in LOG_BASES.items()} == pytest.approx(
        {"e": math.e, "2": 2.0, "10": 10.0}
    )
    with pytest.raises(KeyError):
        from_nats(1.0, "3")


def test_perplexity_of_a_uniform_choice_is_the_number_of_choices() -> None:
    assert perplexity(math.log(65.0)) == pytest.approx(65.0)
    assert perplexity(0.0) == 1.0


def test_perplexity_overflows_to_infinity_and_keeps_nan() -> None:
    assert perplexity(1e6) == math.inf
    assert perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))
