"""Budgets as people write them."""

import pytest

from avit_jax.checkpoints.budgets import Budget, normal_name, parse_budget


@pytest.mark.parametrize(
    ("text", "budget", "name"),
    [
        ("0.80", Budget(0.8, "share"), "0.8"),
        (" .5 ", Budget(0.5, "share"), "0.5"),
        ("1", Budget(1.0, "share"), "1"),
        ("2.9GMACs", Budget(2.9, "gmacs"), "2.9gmacs"),
        ("0.0079 gmacs", Budget(0.0079, "gmacs"), "0.0079gmacs"),
        ("5ms", Budget(5.0, "ms"), "5ms"),
    ],
)
def test_a_budget_has_one_name_however_it_is_written(text, budget, name):
    assert parse_budget(text) == budget
    assert budget.name == normal_name(text) == name


@pytest.mark.parametrize("text", ["fast", "", "-0.5", "0", "0ms", "1.2", "80%", "5 s", "nan"])
def test_what_is_no_budget_is_refused_by_name(text):
    with pytest.raises(ValueError, match="write") as refusal:
        parse_budget(text)
    assert repr(text) in str(refusal.value)


def test_other_names_stay():
    assert normal_name("learnt") == "learnt"
