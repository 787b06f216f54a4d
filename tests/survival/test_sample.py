"""A few faults of each kind in every run of the tests; all of them in the slow ones."""

import pytest

from tests.survival import suite
from tests.survival.faults import kills
from tests.survival.scene import Scenery

SAMPLE = {
    "disk: predict, files of 16000 bytes",
    "files: eval on finished: run.json an empty object",
    "files: train on interrupted: checkpoints/20/manifest.json truncated",
    "kill: SIGKILL behind call 7 of training.loop:Run.advance",
    "not finite: weights nan, eval",
    "permissions: eval on finished: checkpoints/24/state 0000",
    "second run: late, another seed",
    "settings: train.steps 0",
}


@pytest.fixture(scope="module")
def scenery(tmp_path_factory):
    return Scenery(tmp_path_factory.mktemp("survival"))


def _cases():
    for fault in suite.all_faults():
        name = f"{fault.kind}: {fault.name}"
        marks = () if name in SAMPLE else pytest.mark.slow
        yield pytest.param(fault, id=name, marks=marks)


@pytest.mark.fault
@pytest.mark.parametrize("fault", list(_cases()))
def test_nothing_is_lost_without_a_word(fault, scenery):
    outcome = suite.inject(fault, scenery)
    assert outcome.holds, outcome.seen


def test_the_sample_names_faults_that_there_are():
    names = {f"{fault.kind}: {fault.name}" for fault in suite.all_faults()}
    assert names >= SAMPLE


def test_there_are_the_moments_at_which_commands_are_killed():
    moments = [target for target, _, _ in kills.MOMENTS] + [target for _, target, _ in kills.MODES]
    for target in moments:
        place, name = kills.found_at(target)
        assert hasattr(place, name), target
