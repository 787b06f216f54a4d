"""AdaViT's settings, and how decisions follow from policies; `parity` has the numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.methods.adavit import Settings
from avit_jax.methods.adavit.usage_losses import UsageLoss
from tests.execution.policies import EVEN, images_of, make, params_of


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"head_effect": "all"}, "head_effect is 'all': write one of channels, hidden"),
        ({"token_threshold": 0.0}, "token_threshold is 0.0: write a number above 0 and below 1"),
        ({"head_threshold": 1.0}, "head_threshold is 1.0: write a number above 0 and below 1"),
        (
            {"layer_threshold": float("nan")},
            "layer_threshold is nan: write a number above 0 and below 1",
        ),
        ({"temperature": 0.0}, "temperature is 0.0: write a number above 0"),
        ({"final_temperature": -1.0}, "final_temperature is -1.0: write a number above 0"),
        ({"initial_logit": float("inf")}, "initial_logit is inf: write a finite number"),
        ({"logit_shift": float("nan")}, "logit_shift is nan: write a finite number"),
        ({"tokens_loss": {"entropy": 0.1}}, "tokens_loss has no diversity and no entropy"),
        ({"heads_loss": {"goal": 1}}, "heads_loss has no goal: valid settings are weight"),
        ({"heads_loss": {"target": 1.5}}, "heads_loss.target is 1.5: write a share"),
        ({"layers_loss": 0.5}, "layers_loss is 0.5: write settings of it, some of weight"),
        ({"dense_until": 0.5, "ramp": 0.6}, "are shares of the training"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Settings(**settings)


@pytest.mark.parametrize("name", ["keep_layers", "token_start_layer"])
@pytest.mark.parametrize("value", [-1, 3])
def test_blocks_without_policies_must_leave_one_with_them(name, value):
    with pytest.raises(
        UserError, match=f"{name} is {value}, but the model has 3 blocks: .* 0 to 2"
    ):
        make(method={name: value})


def test_temperature_and_targets_move_with_the_training():
    still = Settings(temperature=5.0)
    assert still.temperature_at(0.0) == still.temperature_at(1.0) == 5.0
    falling = Settings(temperature=5.0, final_temperature=1.0)
    assert [falling.temperature_at(p) for p in (0.0, 0.5, 1.0)] == [5.0, 3.0, 1.0]
    ramped = Settings(heads_loss=UsageLoss(target=0.4), dense_until=0.2, ramp=0.4)
    found = [float(ramped.target_at("heads", p)) for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
    np.testing.assert_allclose(found, [1.0, 1.0, 0.7, 0.4, 0.4], atol=1e-6)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def masked(model):
    return jax.jit(model.apply, static_argnames=("train", "features"))


def test_decisions_are_the_thresholds_of_the_linear_policies(model, masked):
    params, images = params_of(model, EVEN), images_of(model, 4)
    aux = masked(params, images, features=True).aux
    settings, before = model.settings, aux["features"][:-1]  # what blocks 1, 2 read
    policies = params["policies"]
    for kind, policy, threshold in (
        ("heads", "head_policy", settings.head_threshold),
        ("layers", "layer_policy", settings.layer_threshold),
    ):
        read = before[:, :, 0]
        weights = policies[kind]
        logits = jnp.einsum("lbd,ldo->lbo", read, weights["kernel"]) + weights["bias"][:, None]
        np.testing.assert_allclose(aux[policy][1:], logits, atol=1e-4)
        decided = jax.nn.sigmoid(aux[policy][1:]) > threshold
        np.testing.assert_array_equal(aux[f"{kind[:-1]}_select"][1:], decided)
        np.testing.assert_array_equal(aux[f"{kind[:-1]}_select"][0], 1.0)
    decided = jax.nn.sigmoid(aux["token_policy"]) > settings.token_threshold
    np.testing.assert_array_equal(aux["token_select"][:, :, 1:], decided)
    np.testing.assert_array_equal(aux["token_select"][:, :, 0], 1.0)


def test_the_margin_is_the_smallest_shift_of_the_logits_that_changes_a_decision(model):
    params, images = params_of(model, EVEN), images_of(model, 4)

    @jax.jit
    def decide(shift):
        aux = model.apply(params, images, settings={"logit_shift": shift}).aux
        return [aux[f"{kind}_select"] for kind in ("head", "layer", "token")], aux["margin"]

    own, margins = decide(0.0)
    for image, margin in enumerate(margins):

        def changes(shift, image=image):
            pairs = zip(decide(shift)[0], own, strict=True)
            return any((found[:, image] != old[:, image]).any() for found, old in pairs)

        assert not changes(0.9 * margin) and not changes(-0.9 * margin)
        assert changes(1.1 * margin) or changes(-1.1 * margin)


def test_training_draws_decisions_and_evaluation_does_not(model, masked):
    params, images = params_of(model, EVEN), images_of(model, 4)
    one, again, other = (
        masked(params, images, train=True, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    chex.assert_trees_all_equal(one.usage, again.usage)
    for kind in ("tokens", "heads", "halves"):
        assert (getattr(one.usage[0], kind) != getattr(other.usage[0], kind)).any(), kind
    assert set(one.penalties) == {"heads", "layers", "tokens"}


def test_a_block_whose_halves_are_chosen_has_no_stochastic_depth_besides():
    # Both halves always run; with stochastic depth in the chosen blocks updates would be rescaled.
    everything = {kind: [1.0] * 3 for kind in EVEN}
    model = make(drop_path_rate=0.9, method={"keep_layers": 0})
    params, images = params_of(model, everything), images_of(model, 4)
    plain = model.apply(params, images).logits
    drawn = model.apply(params, images, train=True, key=jax.random.key(0)).logits
    np.testing.assert_allclose(drawn, plain, atol=1e-5)
    late = make(drop_path_rate=0.9, method={"layers": False})
    params = params_of(late, everything)
    drawn = late.apply(params, images, train=True, key=jax.random.key(0)).logits
    assert not np.allclose(drawn, late.apply(params, images).logits, atol=1e-3)


def test_fresh_policies_keep_everything_for_sure():
    model = make(method={"initial_logit": 3.0})
    params = model.init(jax.random.key(0))
    output = model.apply(params, images_of(model, 4))
    assert all(bool(part.all()) for part in jax.tree.leaves(output.usage))
    np.testing.assert_allclose(model.gmacs(output), model.dense_gmacs(), rtol=1e-6)


def test_settings_of_losses_travel_through_a_config():
    config = configs.base(
        model="adavit_deit_micro_patch4_32", method={"heads_loss": {"target": 0.3}}
    )
    again = configs.from_json(configs.to_json(config))
    settings = configs.make_model(again).settings
    assert settings.heads_loss == UsageLoss(target=0.3)
    assert settings.layers_loss == UsageLoss()


@pytest.mark.parametrize("effect", ["channels", "attention"])
def test_shown_attention_is_that_of_the_heads_as_they_ran(effect):
    """Only a head that loses its queries and keys attends to all tokens alike."""
    model = make(method={"head_effect": effect})
    params, images = params_of(model, EVEN), images_of(model, 4)
    output = jax.jit(model.apply, static_argnames="features")(params, images, features=True)
    dropped = ~np.asarray(output.usage[0].heads)
    rows = np.asarray(output.aux["attention"])[dropped]
    assert dropped.any()
    assert np.allclose(rows, 1 / rows.shape[-1], atol=1e-6) == (effect == "channels")
