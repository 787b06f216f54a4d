"""Options of an axis, and the names of cells."""

import pytest

from avit_jax.errors import UserError
from avit_jax.study.cells import name_of, options_of, short_names


def test_values_of_a_key_are_named_by_themselves():
    found = options_of("method.eps", (0.01, 0.25, None))
    assert [one.label for one in found] == ["0.01", "0.25", "None"]
    assert [one.settings for one in found] == [
        {"method.eps": 0.01}, {"method.eps": 0.25}, {"method.eps": None}
    ]  # fmt: skip


def test_named_options_change_several_settings_or_the_key_itself():
    late, mixture = {"method.eps": 0.2, "method.gate_center": 5.0}, [{"name": "laplace"}]
    found = options_of("method.prior", {"late": late, "peak": mixture, "as it is": {}})
    assert [tuple(one) for one in found] == [
        ("late", late), ("peak", {"method.prior": mixture}), ("as it is", {})
    ]  # fmt: skip


def test_values_without_a_name_and_repeated_ones_are_refused():
    with pytest.raises(UserError, match="makes no name: write its values with names"):
        options_of("method.prior", ([{"name": "laplace"}],))
    with pytest.raises(UserError, match="has the values 1, 1: write each once"):
        options_of("seed", (1, "1"))


def test_names_are_made_of_settings_seed_and_fold():
    labels = {"method.prior": "laplace", "model.norm": "rms norm/2"}
    assert name_of(labels, 3, None) == "prior=laplace,norm=rms_norm_2,seed=3"
    assert name_of(labels, 0, 6) == "prior=laplace,norm=rms_norm_2,seed=0,fold=6"


def test_axes_that_end_alike_keep_their_whole_key():
    assert short_names(["data.name", "model.name", "method.prior", "data.seed"]) == {
        "data.name": "data.name", "model.name": "model.name", "method.prior": "prior",
        "data.seed": "data.seed",
    }  # fmt: skip
