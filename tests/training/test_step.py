"""One training step: what it changes, what it averages, and what it notices."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avit_jax import create_model
from avit_jax.data.mix import Mix, normalise
from avit_jax.losses import classification
from avit_jax.methods import plain as plain_method
from avit_jax.runtime.device_mesh import make_mesh, replicated
from avit_jax.training import optimizers
from avit_jax.training import step as steps
from avit_jax.training.loss import loss_function

RATE = 0.01
WITHOUT_RATE = 7  # the one step whose learning rate is NaN
FROZEN = ("pos_embed", "patch_embed")
SIZES = {
    "patch_size": 16,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 1.0,
    "num_classes": 5,
}
RECIPE = steps.Recipe(
    total_steps=10,
    seed=0,
    accumulation=1,
    label_smoothing=0.1,
    ema_decay=0.0,
    log_every=3,
    mix=Mix(),
)
OPTIM = ConfigDict({"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.05, "clip_norm": 0.0})


@jax.custom_vjp
def overflow_backwards(logits, when):
    """The logits as they are; `when` it is true, their gradient is infinite."""
    return logits


overflow_backwards.defvjp(
    lambda logits, when: (logits, when),
    lambda when, gradient: (gradient * jnp.where(when, jnp.inf, 1.0), None),
)


class Model(plain_method.Model):
    """The dense model; over-bright images overflow its gradient though not its loss."""

    def init(self, key):
        """Draws without JAX, which would have to compile them."""
        generator = np.random.default_rng(0)
        return jax.tree.map(
            lambda leaf: jnp.asarray(generator.normal(0, 0.1, leaf.shape), leaf.dtype),
            self.abstract_params(),
        )

    def forward(self, network, images, call):
        output = super().forward(network, images, call)
        return output.replace(logits=overflow_backwards(output.logits, images.max() > 100))


class RandomModel(Model):
    """Draws in training, and holds positions and patch embedding fixed."""

    def trainable(self, params):
        return {
            name: jax.tree.map(lambda _, name=name: name not in FROZEN, part)
            for name, part in params.items()
        }


class Trainer:
    """A jitted step with the state in front of it."""

    def __init__(self, model, *, optimizer=None, **recipe):
        self.model = model
        self.recipe = dataclasses.replace(RECIPE, **recipe)
        # Updates proportional to the gradients let the parameters show what the gradients were.
        optimizer = optimizer or optimizers.scale_by_rate_at_step(rate)
        mesh = make_mesh(devices=jax.devices()[:1])
        place = replicated(mesh)
        self.start = jax.device_put(steps.init_state(model, optimizer, self.recipe), place)
        self.step = jax.jit(
            steps.make_train_step(model, optimizer, rate, self.recipe, mesh), out_shardings=place
        )
        self.skip = jax.jit(steps.make_skip_step(self.recipe), out_shardings=place)

    def run(self, batches, state=None):
        """States and averages behind each batch."""
        state = self.start if state is None else state
        states, averages = [], []
        for batch in batches:
            state, average = self.step(state, batch)
            states.append(state)
            averages.append(average)
        return states, averages


def rate(step):
    """The learning rate: the same in every step but one."""
    return jnp.where(step == WITHOUT_RATE, jnp.nan, RATE)


def batch(seed: int, size: int = 4, **changes) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    rows = {
        "image": generator.integers(0, 256, (size, 32, 32, 3)).astype(np.float32),
        "label": generator.integers(0, 5, size, dtype=np.int32),
        "substituted": np.zeros(size, bool),
    }
    return {name: jnp.asarray(array) for name, array in (rows | changes).items()}


def spoilt(seed: int) -> dict[str, jax.Array]:
    return batch(seed, image=batch(seed)["image"].at[2, 3, 4, 1].set(jnp.nan))


def over_bright(seed: int) -> dict[str, jax.Array]:
    return batch(seed, image=batch(seed)["image"].at[0, 0, 0, 0].set(1e5))


def make_model(kind: type = Model, **changes):
    named = create_model("deit_micro_patch4_32", **SIZES | changes)
    return kind(named.shape, named.settings)


@pytest.fixture(scope="module")
def plain() -> Trainer:
    return Trainer(make_model())


@pytest.fixture(scope="module")
def accumulating() -> Trainer:
    return Trainer(make_model(), accumulation=2, ema_decay=0.9)


@pytest.fixture(scope="module")
def drawing() -> Trainer:
    model = make_model(RandomModel, drop_path_rate=0.5, dropout_rate=0.2)
    trainable = model.trainable(model.abstract_params())
    optimizer = optimizers.build(OPTIM, rate, trainable=trainable)
    return Trainer(model, optimizer=optimizer, mix=Mix(mixup=0.8))


def test_a_step_is_gradient_descent_on_the_mean_smoothed_cross_entropy(plain):
    model = plain.model
    rows = batch(0)

    @jax.jit
    def loss(params):
        logits = model.apply(params, normalise(rows["image"])).logits
        targets = 0.9 * jax.nn.one_hot(rows["label"], 5) + 0.02
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()

    value, gradient = jax.value_and_grad(loss)(plain.start.params)
    (state,), (averages,) = plain.run([rows])
    expected = jax.tree.map(lambda p, g: p - RATE * g, plain.start.params, gradient)
    chex.assert_trees_all_close(state.params, expected, atol=1e-6)
    assert int(state.step) == 1
    assert averages["loss"] == pytest.approx(float(value), rel=1e-5)
    assert averages["task_loss"] == averages["loss"]
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))
    assert averages["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert averages["learning_rate"] == pytest.approx(RATE)
    assert averages["gmacs"] == pytest.approx(model.dense_gmacs(), rel=1e-5)
    assert state.ema is None


def test_penalties_and_all_exits_are_part_of_the_loss():
    adaptive = create_model(
        "avit_micro_patch4_32", method={"ponder_weight": 0.5, "prior_weight": 2.0}, **SIZES
    )

    class TwoExits(type(adaptive)):
        def forward(self, network, images, call):
            output = super().forward(network, images, call)
            return output.replace(exits=jnp.stack([output.logits, 2 * output.logits]))

    model = TwoExits(adaptive.shape, adaptive.settings)
    params = make_model().init(jax.random.key(0))
    images = normalise(batch(1)["image"])
    targets = classification.soft_targets(batch(1)["label"], 5)
    arguments = (params, images, targets, jax.random.key(0), 1.0)
    total, logged = jax.jit(loss_function(model))(*arguments)
    output = jax.jit(adaptive.apply)(params, images)
    task = sum(classification.cross_entropy(k * output.logits, targets).mean() for k in (1, 2))
    np.testing.assert_allclose(logged["task_loss"], task, rtol=1e-5)
    assert set(output.penalties) == {"ponder", "prior"}
    for name, value in output.penalties.items():
        np.testing.assert_allclose(logged[f"{name}_penalty"], value, rtol=1e-5)
        assert value > 0
    np.testing.assert_allclose(total, task + sum(output.penalties.values()), rtol=1e-5)


def test_randomness_depends_on_seed_and_step_only(drawing):
    rows = batch(2)
    (first, _), _ = drawing.run([rows, rows])
    (again,), _ = drawing.run([rows])
    chex.assert_trees_all_equal(again.params, first.params)
    later = drawing.start.replace(step=drawing.start.step + 5)
    (moved,), _ = drawing.run([rows], later)
    assert not np.allclose(moved.params["head"]["kernel"], first.params["head"]["kernel"])


def test_parameters_that_are_not_trainable_neither_move_nor_decay(drawing):
    _, last = drawing.run([batch(6), batch(7)])[0]
    for name, start in drawing.start.params.items():
        pairs = zip(jax.tree.leaves(start), jax.tree.leaves(last.params[name]), strict=True)
        for before, after in pairs:
            assert np.array_equal(before, after) == (name in FROZEN), name


def test_accumulated_gradients_are_those_of_the_whole_batch(plain, accumulating):
    rows = batch(3)
    (whole,), (whole_averages,) = plain.run([rows])
    (parts,), (part_averages,) = accumulating.run([rows])
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
    assert part_averages.keys() == whole_averages.keys()
    for name in part_averages:
        np.testing.assert_allclose(part_averages[name], whole_averages[name], rtol=1e-4)


def test_the_moving_average_follows_its_formula(accumulating):
    chex.assert_trees_all_equal(accumulating.start.ema, accumulating.start.params)
    states, _ = accumulating.run([batch(4), batch(5)])
    expected = accumulating.start.params
    for state in states:
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, expected, state.params)
        chex.assert_trees_all_close(state.ema, expected, atol=1e-6)
    assert not np.allclose(states[-1].ema["head"]["kernel"], states[-1].params["head"]["kernel"])


def test_averages_run_over_the_steps_since_the_last_line_of_the_log(plain):
    rows = [batch(seed) for seed in range(5)]
    rows[1]["substituted"] = jnp.array([True, False, False, True])
    _, averages = plain.run(rows)
    alone = []
    state = plain.start
    for row in rows:
        fresh = state.replace(window=plain.start.window)
        state, single = plain.step(fresh, row)
        alone.append(float(single["loss"]))
    expected = [
        alone[0],
        np.mean(alone[:2]),
        np.mean(alone[:3]),  # a line is written here, so the next step begins anew
        alone[3],
        np.mean(alone[3:]),
    ]
    np.testing.assert_allclose([a["loss"] for a in averages], expected, rtol=1e-5)
    np.testing.assert_allclose(
        [a["substituted"] for a in averages], [0, 0.25, 1 / 6, 0, 0], rtol=1e-5
    )
    assert [a["count"] for a in averages] == [1, 2, 3, 1, 2]


def test_a_nan_among_the_pixels_is_noticed_at_its_step_and_stays_on_record(plain):
    batches = [batch(0), batch(1), spoilt(2), batch(3), spoilt(4)]
    states, averages = plain.run(batches)
    assert [int(state.nonfinite) for state in states] == [-1, -1, 2, 2, 2]
    assert [int(average["nonfinite"]) for average in averages] == [-1, -1, 2, 2, 2]


def test_an_infinite_gradient_of_a_finite_loss_is_noticed(plain):
    states, averages = plain.run([batch(0), over_bright(1)])
    assert np.isfinite([average["loss"] for average in averages]).all()
    assert [int(state.nonfinite) for state in states] == [-1, 1]


def test_an_update_that_is_not_finite_is_noticed_before_its_step_can_be_saved(plain):
    states, averages = plain.run([batch(seed) for seed in range(WITHOUT_RATE + 1)])
    assert np.isfinite(averages[-1]["grad_norm"])
    assert np.isfinite(states[-2].params["head"]["kernel"]).all()
    assert np.isnan(states[-1].params["head"]["kernel"]).any()
    assert [int(state.nonfinite) for state in states[-2:]] == [-1, WITHOUT_RATE]


def test_the_exception_counts_steps_for_people_from_1():
    problem = steps.NonFinite(41)
    assert problem.step == 41
    assert str(problem) == "the loss, gradient or update of step 42 is not finite"


def test_a_skipped_step_changes_step_and_window_only(plain):
    skip = plain.skip
    states, averages = plain.run([batch(0), batch(1)])
    after, skipped = skip(states[-1])
    assert int(after.step) == 3
    chex.assert_trees_all_equal(after.replace(step=states[-1].step), states[-1])
    chex.assert_trees_all_equal(skipped, averages[-1])
    anew, nothing = skip(after)  # three steps are a line of the log, so a new one begins
    assert all(value == 0 for value in anew.window.values())
    assert nothing["count"] == 0


def test_an_average_leaves_skipped_steps_out(plain):
    skip = plain.skip
    (first,), (alone,) = plain.run([batch(0)])
    state, _ = skip(first)
    (last,), (together,) = plain.run([batch(2)], state)
    assert int(last.step) == 3
    (other,), (single,) = plain.run([batch(2)], first.replace(step=first.step + 2))
    chex.assert_trees_all_equal(other.params, last.params)
    assert together["loss"] == pytest.approx(float(alone["loss"] + single["loss"]) / 2, rel=1e-5)


def test_every_number_of_the_log_is_there_from_the_start(plain):
    _, (averages,) = plain.run([batch(0)])
    assert set(averages) == set(plain.start.window) | {"nonfinite"}
    assert {"loss", "task_loss", "gmacs", "grad_norm", "learning_rate", "substituted"} <= set(
        averages
    )
