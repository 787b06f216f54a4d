"""Sizes of a training on live rows, and the order of steps where one of them finds no room."""

from typing import NamedTuple

import numpy as np
import pytest

from avit_jax.training.row_sizes import MOST_SIZES, RowSizes
from avit_jax.training.stepping import StepsOnLiveRows

IMAGES, TOKENS, DEPTH = 32, 16, 3
START = RowSizes.everything(images=IMAGES, depth=DEPTH, num_tokens=TOKENS)


def test_it_starts_with_room_for_everything_and_then_takes_what_was_needed():
    assert START.capacities == (512, 512, 512) and START.share == 1
    fitted = START.fitted(np.array([512, 300, 100]))
    assert fitted.sizes == ((512, 512, 512), (512, 312, 104)) and fitted.current == 1
    assert fitted.share == pytest.approx((512 + 312 + 104) / 1536)
    assert fitted.larger().capacities == START.capacities
    assert START.fitted(np.zeros(3, int)) == START  # no step, nothing known


def test_a_size_that_is_there_serves_where_a_new_one_would_gain_little():
    fitted = START.fitted(np.array([512, 300, 100]))
    assert fitted.larger().fitted(np.array([512, 290, 90])) == fitted
    assert fitted.fitted(np.array([512, 310, 104])).capacities == fitted.capacities
    wider = fitted.fitted(np.array([512, 320, 100]))  # holds too little in the second layer
    assert wider.capacities[1] > 312 and wider.sizes[0] == START.capacities


def test_there_are_few_sizes_and_the_largest_always_holds_everything():
    sizes = START
    for share in np.linspace(1, 0.02, 30):
        needed = np.full(DEPTH, round(512 * share))
        sizes = sizes.fitted(needed)
        assert np.all(np.less_equal(needed, sizes.capacities))
        assert len(sizes.sizes) <= MOST_SIZES and sizes.sizes[0] == START.capacities
    assert len(sizes.sizes) == MOST_SIZES
    assert sizes.fitted(np.full(DEPTH, 512)).capacities == START.capacities


def test_counts_of_a_device_that_had_more_images_take_all_the_room_there_is():
    assert START.fitted(np.array([1024, 900, 700])) == START


def test_sizes_survive_a_checkpoint():
    fitted = START.fitted(np.array([512, 300, 100]))
    assert RowSizes.of_json(fitted.to_json()) == fitted


class State(NamedTuple):
    """What a step made by hand changes: its number, and the batches it has learnt from."""

    step: int = 0
    learnt: tuple = ()


class Flag:
    """Whether a step was made, which the host may ask for late."""

    def __init__(self, value):
        self.value, self.is_read = value, False

    def copy_to_host_async(self):
        pass

    def __bool__(self):
        self.is_read = True
        return self.value


class Steps:
    """Compiles steps that learn a batch, a number of rows, in capacities that hold as many."""

    def __init__(self):
        self.compiled, self.flags = [], []

    def __call__(self, capacities):
        self.compiled.append(capacities)

        def step(state, batch, teacher, number):
            made = batch <= capacities[-1] and state.step == int(number)
            after = State(state.step + 1, (*state.learnt, (batch, capacities)))
            self.flags.append(Flag(bool(made)))
            return after if made else state, {"fits": self.flags[-1]}

        return step


SMALL, MIDDLE, LARGE = (10,), (20,), (30,)


def run(batches):
    steps = Steps()
    sizes = RowSizes(images=1, sizes=(LARGE, MIDDLE, SMALL), current=2)
    stepping, state, averages = StepsOnLiveRows(steps, sizes, None), State(), None
    for number, batch in enumerate(batches):
        state, averages = stepping.advance(state, number, batch)
    assert not steps.flags[-1].is_read  # the loop never waits for the step it has just started
    state, _ = stepping.settle(state, averages)
    return state, steps, stepping


def test_steps_are_made_in_order_whichever_of_them_finds_no_room():
    state, steps, _ = run([5, 15, 7, 8])
    assert state.learnt == ((5, SMALL), (15, MIDDLE), (7, MIDDLE), (8, MIDDLE))
    assert steps.compiled == [SMALL, MIDDLE]


def test_a_batch_goes_up_until_it_fits_and_the_size_stays():
    state, steps, stepping = run([25, 5, 5])
    assert state.learnt == ((25, LARGE), (5, LARGE), (5, LARGE))
    assert stepping.stored()["current"] == 0 and steps.compiled == [SMALL, MIDDLE, LARGE]


def test_the_last_step_is_made_again_once_somebody_wants_to_be_sure():
    state, _, stepping = run([5, 5, 15])
    assert state.learnt == ((5, SMALL), (5, SMALL), (15, MIDDLE))
    assert stepping.settle(state, None) == (state, None)
