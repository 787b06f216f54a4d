"""A run in a bucket, killed on the way; with `-m slow` through all modes and of two processes."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import avit_jax
from avit_jax.errors import EXIT_PREEMPTED
from avit_jax.runtime.stores import as_path, files_in
from tests import commands
from tests.survival import process
from tests.survival.faults.kills import signal_at
from tests.survival.pair import Pair

SECONDS = 600  # a command may take, before it counts as hung
RUN = ("--config", "avit_digits:debug", "--config.checkpoint.every", "0.03")


def _command(*arguments):
    return [sys.executable, "-m", "avit_jax.main", *map(str, arguments)]


def _done(*arguments):
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a-token" not in done.stdout + done.stderr
    return done.stdout


def _refused(*arguments):
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2, done.stderr[-2000:]
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.fault
def test_a_run_in_a_bucket_that_was_killed_goes_on(folder):
    command = commands.command(folder / "run", checkpoint__every=0.05, train__steps=12)
    prepare = functools.partial(signal_at, "avit_jax.training.loop:Run.advance", signal.SIGKILL, 9)
    assert process.run(command, prepare=prepare).status == -signal.SIGKILL
    ended = process.run(command)
    assert ended.status == 0 and "going on from step" in ended.err, ended.err
    lines = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == sorted(set(steps)) and steps[-1] == 12
    assert json.loads((folder / "run" / "summary.json").read_text())["wall_time"]["steps"] > 0


@pytest.mark.slow
@pytest.mark.fault
def test_a_run_in_a_bucket_ends_as_a_local_one_though_killed_and_serves_all_modes(folder, tmp_path):
    local, stored = tmp_path / "run", folder / "run"
    _done(*RUN, "--workdir", local)
    killed = subprocess.Popen(_command(*RUN, "--workdir", stored), stdout=subprocess.DEVNULL)
    until = time.monotonic() + SECONDS
    while not any(name.endswith("manifest.json") for name in files_in(stored / "checkpoints")):
        assert killed.poll() is None and time.monotonic() < until
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    _done(*RUN, "--workdir", stored)
    assert (stored / "metrics.jsonl").read_text() == (local / "metrics.jsonl").read_text()
    ours, theirs = (avit_jax.load_run(place) for place in (str(stored), local))
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)

    _done("--mode", "eval", "--workdir", stored)
    assert json.loads((stored / "eval.json").read_text())["images"] == 510
    for number, image in enumerate(pixels):
        (folder / "images" / str(number)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "image.png")
        place = folder / "images" / str(number) / "image.png"
        place.write_bytes((tmp_path / "image.png").read_bytes())
    images = ("--input", folder / "images")
    _done("--mode", "predict", "--workdir", stored, *images, "--output", folder / "p.jsonl")
    assert len((folder / "p.jsonl").read_text().splitlines()) == 3
    _done("--mode", "visualize", "--workdir", stored, *images, "--output", folder / "page")
    assert {"index.html", "summary.json"} <= set(files_in(folder / "page"))
    _done("--mode", "export", "--workdir", stored)
    assert {"model.stablehlo", "weights.npz"} <= set(files_in(stored / "export"))
    assert avit_jax.load_run(str(stored / "export")).predict(list(pixels))
    weights = folder / "x.safetensors"
    _done("--mode", "convert", "--workdir", stored, "--output", weights)
    _done("--mode", "convert", "--input", weights, "--output", folder / "converted")
    assert as_path(str(folder / "converted" / "config.json")).exists()


@pytest.mark.slow
@pytest.mark.fault
def test_two_processes_share_a_run_in_a_bucket_and_go_on_when_one_was_killed(folder, tmp_path):
    """As the workers of a TPU pod do."""
    local, stored = tmp_path / "run", folder / "run"
    undisturbed = Pair.begin(_command(*RUN, "--workdir", local))
    assert undisturbed.end(SECONDS) == [0, 0], undisturbed.said(0) + undisturbed.said(1)
    pair = Pair.begin(_command(*RUN, "--workdir", stored))
    until = time.monotonic() + SECONDS
    while not any(name.endswith("manifest.json") for name in files_in(stored / "checkpoints")):
        assert pair.processes[0].poll() is None and time.monotonic() < until, pair.said(0)
    pair.processes[1].kill()
    assert pair.end(SECONDS)[0] == EXIT_PREEMPTED, pair.said(0)
    assert "process 1 has ended without a word" in pair.said(0)
    again = Pair.begin(_command(*RUN, "--workdir", stored))
    assert again.end(SECONDS) == [0, 0], again.said(0) + again.said(1)
    assert "going on from step" in again.said(0)
    assert (stored / "metrics.jsonl").read_text() == (local / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_s3_serves_images_and_takes_answers_but_no_run(tmp_path, monkeypatch):
    moto = pytest.importorskip("moto.server", reason="the extra 'test-stores' is not installed")
    pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    import boto3

    server = moto.ThreadedMotoServer(port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "a-token",
        "AWS_SECRET_ACCESS_KEY": "a-token",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(tmp_path / "image.png")
    content = (tmp_path / "image.png").read_bytes()
    client.put_object(Bucket="bucket", Key="images/3/image.png", Body=content)
    _done(*RUN, "--workdir", tmp_path / "run")
    answers = ("--output", "s3://bucket/answers.jsonl")
    run = ("--mode", "predict", "--workdir", tmp_path / "run")
    _done(*run, "--input", "s3://bucket/images", *answers)
    body = client.get_object(Bucket="bucket", Key="answers.jsonl")["Body"].read()
    assert len(body.splitlines()) == 1 and b"3/image.png" in body
    assert "Orbax keeps no checkpoints" in _refused(*RUN, "--workdir", "s3://bucket/run")
    assert "no such bucket" in _refused(*run, "--output", "s3://gone/answers.jsonl")
    server.stop()
