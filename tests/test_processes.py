"""Two real processes train and evaluate as one does."""

import json
import socket

import pytest

from tests import commands

SETTINGS = {"train__steps": 4, "checkpoint__every": 0.05, "log__every": 1, "eval__batch_size": 96}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def numbers(line):
    return {name: value for name, value in line.items() if isinstance(value, int | float)}


def test_two_processes_give_the_losses_of_one(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    status, _, err = commands.run(commands.command(alone, **SETTINGS), devices=2)
    assert status == 0, err
    address = f"127.0.0.1:{free_port()}"
    processes = [
        commands.start(
            commands.command(together, **SETTINGS),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Result" in outputs[0][0]
    assert "Result" not in outputs[1][0], "only process 0 prints"
    lines, expected = commands.metrics(together), commands.metrics(alone)
    assert [line["kind"] for line in lines] == ["train"] * 4 + ["eval"]
    for ours, reference in zip(lines, expected, strict=True):
        assert numbers(ours) == pytest.approx(numbers(reference), abs=1e-5, rel=1e-5)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (alone, together)]
    assert summaries[0]["images"] == summaries[1]["images"] == 510
    assert summaries[0]["top1"] == summaries[1]["top1"]
