"""What counts as training time, and what does not."""

import pytest

from avit_jax.runtime.training_clock import Effort, TrainingClock


class Result:
    """Of a step: done as soon as somebody waits for it."""

    def __init__(self):
        self.done = False

    def is_ready(self):
        return self.done

    def block_until_ready(self):
        self.done = True
        return self


def test_speed_leaves_out_compilation_and_pauses_and_counts_what_is_done():
    now = [0.0]
    clock = TrainingClock(lambda: now[0])
    now[0] = 50.0  # start-up and compilation
    clock.follow(Result(), images=8)
    assert clock.images_per_second() is None
    for second in (51.0, 52.0):  # two in flight: nothing is known to be done
        now[0] = second
        clock.follow(Result(), images=8)
        assert clock.images_per_second() is None
    now[0] = 54.0
    clock.follow(Result(), images=8)
    assert clock.images_per_second() == 8 / 4
    with clock.paused():
        now[0] = 100.0
    assert clock.images_per_second() == 24 / 4
    now[0] = 102.0
    effort = clock.effort(Effort(seconds=1000.0, timed_images=6, timed_seconds=4.0))
    assert effort == Effort(seconds=1102.0, timed_images=30, timed_seconds=10.0)
    assert effort.images_per_second == pytest.approx(3.0)


def test_pauses_are_added_up_by_their_purpose():
    now = [0.0]
    clock = TrainingClock(lambda: now[0])
    for purpose, seconds in (("evaluating", 3.0), ("saving", 2.0), ("", 9.0), ("evaluating", 1.0)):
        with clock.paused(purpose):
            now[0] += seconds
    effort = clock.effort(Effort(evaluating=10.0, saving=20.0))
    assert (effort.evaluating, effort.saving, effort.seconds) == (14.0, 22.0, 15.0)


def test_a_pause_before_the_first_step_does_not_start_the_clock():
    clock = TrainingClock(iter(range(100)).__next__)
    with clock.paused():
        pass
    clock.follow(Result(), images=8)
    assert clock.effort().timed_images == 0


def test_only_time_in_which_the_device_had_nothing_to_do_is_spent_on_waiting():
    now, step = [0.0], Result()
    clock = TrainingClock(lambda: now[0])
    clock.follow(Result(), images=8)
    clock.follow(step, images=8)  # runs until second 3
    looks = []

    def arrives(seconds):
        """At second 5."""
        looks.append(seconds)
        now[0] += 1.0 if seconds else 0.0
        step.done = now[0] >= 3.0
        return now[0] >= 5.0

    clock.wait_for(arrives)
    assert clock.effort(Effort(waiting=10.0)).waiting == 10.0 + 5.0 - 3.0
    assert looks[0] == 0.0
    clock.wait_for(lambda seconds: True)
    assert clock.effort().waiting == 2.0


def test_an_effort_that_was_saved_before_waiting_was_counted_can_be_read():
    stored = {"seconds": 9.0, "timed_images": 8, "timed_seconds": 4.0, "evaluating": 1.0}
    assert Effort(**stored).waiting == 0.0


def test_pauses_within_pauses_count_once_and_for_the_outer_purpose():
    now = [0.0]
    clock = TrainingClock(lambda: now[0])
    with clock.paused("compiling"):
        now[0] += 3.0
        with clock.paused("saving"):
            now[0] += 4.0
    assert (clock.effort().compiling, clock.effort().saving) == (7.0, 0.0)


def test_a_clock_that_is_put_back_stands_still_and_makes_nothing_negative():
    readings = iter([100.0, 100.0, 110.0, -50.0, -50.0, -45.0, -45.0])
    clock = TrainingClock(lambda: next(readings))
    seconds = [clock.effort().seconds for _ in range(4)]
    assert seconds == [10.0, 10.0, 10.0, 15.0]


def test_what_went_by_before_a_restart_does_not_count():
    now = [0.0]
    clock = TrainingClock(lambda: now[0])
    with clock.paused("saving"):
        now[0] = 50.0
    clock.restart()
    now[0] = 52.0
    assert clock.effort() == Effort(seconds=2.0)
