"""The weights of a checkpoint are found wherever they lie, and of several the ones meant."""

import numpy as np
import pytest

from avit_jax.pretrained.containers import chosen_weights
from avit_jax.pretrained.torch_objects import Inert, Unreadable

ONE, TWO = np.float32(1), np.float32(2)
STATE = {"blocks.0.norm1.weight": ONE, "norm.weight": ONE}
OTHER = dict.fromkeys(STATE, TWO)
OPTIMIZER = {"state": {0: {"exp_avg": ONE}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "loss": 0.1},
        {"module": STATE, "optimizer": None, "global_steps": 10},
        {"net": STATE, "epoch": 3},
        {"checkpoint": {"model": {"state_dict": STATE}}},
        {"state_dict": STATE, "best_acc1": ONE, "optimizer": {"state": {"norm": {"m": ONE}}}},
        {"state_dict": {f"model.{name}": a for name, a in STATE.items()}, "hyper_parameters": {}},
        {"model": STATE, "model_ema": None, "args": Inert("argparse.Namespace")},
        {"whatever": STATE, "rng_state": ONE},
        {"model": STATE, "criterion": {"weight": ONE}},
    ],
    ids=lambda content: ", ".join(content),
)
def test_the_only_weights_are_found_wherever_they_are(content):
    assert chosen_weights(content, "auto") == STATE
    assert chosen_weights(content, "raw") == STATE
    with pytest.raises(Unreadable, match="has no moving average of the weights"):
        chosen_weights(content, "ema")


@pytest.mark.parametrize(
    ("raw", "average"),
    [
        ("model_state_dict", "ema_state_dict"),
        ("net", "net_ema"),
        ("module", "ema"),
        ("params", "params_ema"),
        ("student", "teacher"),
        ("base_encoder", "momentum_encoder"),
        ("model", "swa_model"),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_of_weights_and_their_average_the_one_asked_for_is_taken(raw, average, flat, caplog):
    both = {raw: STATE, average: OTHER}
    if flat:
        both = {f"{key}.{name}": a for key, named in both.items() for name, a in named.items()}
    with caplog.at_level("INFO", logger="avit_jax"):
        assert chosen_weights(both, "raw") == STATE
        assert chosen_weights(both, "ema") == chosen_weights(both, "auto") == OTHER
    assert caplog.messages[0].endswith(f"not their moving average in {average}")
    assert caplog.messages[1].endswith(f"in {average} is taken, not those in {raw}")


def test_a_teacher_that_is_no_average_is_asked_for():
    both = {"student": STATE, "teacher": OTHER | {"blocks.1.norm1.weight": TWO}}
    with pytest.raises(Unreadable, match="two networks, teacher and student: ask for one with"):
        chosen_weights(both, "auto")
    assert chosen_weights(both, "raw") == STATE
    assert len(chosen_weights(both, "ema")) == 3


def test_several_networks_are_named_and_the_usual_one_is_taken(caplog):
    with pytest.raises(Unreadable, match=r"several sets of weights \(generator, critic\): save"):
        chosen_weights({"generator": STATE, "critic": OTHER}, "auto")
    assert chosen_weights({"critic": OTHER, "model": STATE}, "auto") == STATE
    assert caplog.messages == ["the weights in model are taken, not those in critic"]


def test_networks_side_by_side_stay_for_a_model_that_has_several():
    cascade = {f"{part}.{name}": a for part in ("coarse", "fine") for name, a in STATE.items()}
    assert chosen_weights(cascade, "auto") == cascade
