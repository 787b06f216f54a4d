"""The progress of a run, on a terminal and in a log file."""

import io

import pytest

from avit_jax.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ticking(*seconds: float):
    return iter(seconds).__next__


def test_a_log_file_gets_one_plain_line_per_update():
    stream = io.StringIO()
    progress = Progress(
        1120, batch_size=64, stream=stream, title="train", clock=ticking(60.0, 62.5)
    )
    progress.update(100, {"loss": 1.5})
    progress.update(120, {"loss": 1.23456, "mean_depth": 3.0, "learning_rate": 5e-4})
    progress.close()
    assert stream.getvalue().splitlines() == [
        "train  step 100/1120  loss 1.5",
        "train  step 120/1120  loss 1.235  mean depth 3  learning rate 5.00e-04  512 images/s  "
        "ETA 2:05",
    ]


def test_neither_compilation_nor_evaluation_moves_the_rate():
    # 100 s of compilation, 1 s per 10 steps, and an evaluation of 50 s in the third interval.
    clock = ticking(100.0, 101.0, 102.0, 153.0, 154.0)
    progress = Progress(100, batch_size=8, stream=io.StringIO(), clock=clock)
    assert progress.images_per_second is None
    for step in (10, 20, 30, 40, 50):
        progress.update(step, {})
    assert progress.images_per_second == pytest.approx(80.0)


def test_a_rate_that_is_measured_elsewhere_is_shown_as_soon_as_there_is_one():
    stream, rates, clock = io.StringIO(), iter([None, None, 700.0]), ticking(0.0, 1e-6, 2.0)
    progress = Progress(
        9, batch_size=8, images_per_second=rates.__next__, stream=stream, clock=clock
    )
    for step in (1, 2, 3):
        progress.update(step, {})
    assert stream.getvalue().splitlines() == [
        "step 1/9",
        "step 2/9",
        "step 3/9  700 images/s  ETA 0:06",
    ]


def test_the_time_left_counts_evaluations_and_hours():
    stream = io.StringIO()
    progress = Progress(100, start=40, batch_size=1, stream=stream, clock=ticking(0.0, 1300.0))
    progress.update(50, {})
    progress.update(60, {})
    assert stream.getvalue().splitlines()[-1].endswith("ETA 1:26:40")


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = Progress(200, start=50, batch_size=64, stream=stream, clock=ticking(0.0, 1.0))
    progress.update(90, {"loss": 2.0})
    progress.update(100, {"loss": 1.0})
    progress.write("evaluated")
    progress.close()
    shown = stream.getvalue()
    assert "100/200" in shown
    assert " 50%|" in shown
    assert "640 images/s  ETA 0:10  loss 1" in shown
    assert "evaluated\n" in shown
    assert "step" not in shown
