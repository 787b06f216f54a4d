"""What a line of `timings.jsonl` says."""

from avit_jax.runtime.training_clock import Effort
from avit_jax.training.run_log import timing


def test_a_line_has_the_seconds_of_the_run_and_the_speed_since_the_line_before():
    before = Effort(seconds=100.0, timed_images=1000, timed_seconds=50.0)
    now = Effort(
        seconds=131.234567,
        timed_images=1600,
        timed_seconds=70.0,
        evaluating=8.0,
        saving=2.5,
        waiting=1.25,
        compiling=12.0,
        lost=3.0,
    )
    assert timing(before, now) == {
        "seconds": 131.23,
        "images_per_second": 30.0,
        "evaluating_seconds": 8.0,
        "saving_seconds": 2.5,
        "waiting_seconds": 1.25,
        "compiling_seconds": 12.0,
        "lost_seconds": 3.0,
    }


def test_where_no_step_was_timed_there_is_no_speed():
    before = Effort(seconds=100.0, timed_images=1000, timed_seconds=50.0)
    now = Effort(seconds=110.0, timed_images=1000, timed_seconds=50.0)
    assert timing(before, now)["images_per_second"] is None
