"""What a training step averages for the log, and what it notices."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.training import step as steps
from tests.training.trainer import WITHOUT_RATE, batch, over_bright, spoilt


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
