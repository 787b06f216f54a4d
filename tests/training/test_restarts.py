"""What a restart has cost is what the diary says beyond the checkpoint."""

import json

from avit_jax.runtime.training_clock import Effort
from avit_jax.training import restarts


def line(step, seconds, kind="train", **more):
    spent = {"seconds": seconds, "evaluating_seconds": 0.0, "saving_seconds": 0.0}
    return {"step": step, "kind": kind} | spent | more


def test_steps_behind_the_checkpoint_are_lost_and_their_time_goes_on():
    diary = [line(10, 100.0), line(20, 150.0), line(30, 190.0)]
    found = restarts.resumed(Effort(seconds=151.0, lost=5.0), diary, step=20)
    assert (found.seconds, found.lost) == (190.0, 44.0)


def test_two_kills_behind_one_checkpoint_are_both_lost():
    stored = Effort(seconds=100.0)
    first = restarts.resumed(stored, [line(30, 140.0)], step=20)
    again = [line(30, 140.0), line(30, first.seconds + 25.0)]
    second = restarts.resumed(stored, again, step=20)
    assert (second.seconds, second.lost) == (165.0, 65.0)


def test_an_evaluation_behind_the_checkpoint_is_kept():
    spent = {"evaluating_seconds": 28.0, "saving_seconds": 1.5}
    diary = [line(20, 100.0), line(20, 130.0, "eval", **spent), line(30, 145.0)]
    found = restarts.resumed(Effort(seconds=101.0, saving=1.0), diary, step=20)
    assert (found.seconds, found.evaluating, found.lost) == (145.0, 28.0, 15.0)
    assert found.saving == 1.5, "with the checkpoint itself"


def test_a_run_that_stopped_in_good_order_has_lost_nothing():
    stored = Effort(seconds=151.0, compiling=3.0)
    assert restarts.resumed(stored, [line(20, 150.0)], step=20) == stored
    assert restarts.resumed(stored, [], step=20) == stored


def test_the_diary_is_read_over_torn_and_foreign_lines(tmp_path):
    file = tmp_path / "timings.jsonl"
    assert restarts.read(file) == []
    whole = {"step": 3, "kind": "train", "seconds": 4.5}
    file.write_text(f'{json.dumps(whole)}\n[1]\n\n{{"step": 7, "kin')
    assert restarts.read(file) == [line(3, 4.5)]
