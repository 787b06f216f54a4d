"""Settings are refused by their name, with what was found and what to write."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import validators
from avit_jax.errors import UserError

NAN, INFINITE = float("nan"), float("inf")
NUMBERS = [
    (validators.finite, (-1.0, 0, np.float32(2)), (NAN, INFINITE)),
    (validators.positive, (1, 1e-9), (0, -1.0, NAN, INFINITE)),
    (validators.not_negative, (0, 3.5), (-1e-9, NAN, INFINITE)),
    (validators.share, (0, 0.5, 1.0), (-0.1, 1.1, NAN)),
    (validators.share_below_one, (0.0, 0.99), (-0.1, 1.0, NAN)),
    (validators.between_zero_and_one, (0.5,), (0.0, 1, NAN)),
]


def settings(value):
    return types.SimpleNamespace(rate=value)


@pytest.mark.parametrize(("check", "valid", "invalid"), NUMBERS)
def test_numbers_outside_their_range_are_refused(check, valid, invalid):
    for value in valid:
        check(settings(value), "rate")
    for value in (*invalid, None, "0.5", [0.5]):
        with pytest.raises(UserError, match=r"^config\.rate is .*: write .*\.$"):
            check(settings(value), "rate", prefix="config.")


def test_a_lowest_number_is_named():
    validators.at_least(2, settings(2), "rate")
    with pytest.raises(UserError, match=r"^rate is 1: write at least 2\.$"):
        validators.at_least(2, settings(1), "rate")


def test_words_are_listed():
    validators.one_of(("red", "blue"), settings("red"), "rate")
    with pytest.raises(UserError, match=r"^rate is 'green': write one of red, blue\.$"):
        validators.one_of(("red", "blue"), settings("green"), "rate")


def test_what_is_optional_may_be_none_and_the_message_says_so():
    validators.one_of(("red",), settings(None), "rate", optional=True)
    validators.positive(settings(None), "rate", optional=True)
    with pytest.raises(UserError, match=r"write a number above 0, or leave it out\.$"):
        validators.positive(settings(0), "rate", optional=True)


def test_traced_values_pass_for_nobody_can_look_at_them():
    @jax.jit
    def program(value):
        validators.finite(settings(value), "rate")
        return value

    assert jnp.isnan(program(NAN))
