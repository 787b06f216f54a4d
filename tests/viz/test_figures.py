"""Sums over the images of a report, against sums by hand."""

import json

import numpy as np
import pytest

from avit_jax.viz import figures
from avit_jax.writer import plain

NAMES = ("ant", "bee", "cow")


@pytest.fixture
def all_looked(make_looked):
    labels, answers = (1, 0, None, 1), (1, 1, 2, 1)
    return [
        make_looked(seed=seed, label=label, answer=answer, name=f"{seed}.png")
        for seed, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]


def test_the_summary_counts_every_token_of_every_image(all_looked):
    found = figures.summarise([figures.row(one) for one in all_looked], NAMES)
    depths = np.stack([one.depth for one in all_looked])
    assert sum(found["depth_histogram"]) == pytest.approx(1.0)
    assert found["depth_histogram"] == pytest.approx(
        [(depths == layer).mean() for layer in range(1, 6)]
    )
    assert found["mean_depth"] == pytest.approx(depths.mean())
    assert found["gmacs"] == pytest.approx(np.mean([one.gmacs for one in all_looked]))
    live = np.stack([one.live for one in all_looked]).mean(2)
    for name, values in (("mean", live.mean(0)), ("least", live.min(0)), ("most", live.max(0))):
        np.testing.assert_allclose(found["live"][name], values)


def test_only_images_whose_class_is_known_count_for_accuracy_and_classes(all_looked):
    found = figures.summarise([figures.row(one) for one in all_looked], NAMES)
    assert (found["labelled"], found["top1"]) == (3, pytest.approx(2 / 3))
    means = {
        "ant": all_looked[1].depth.mean(),
        "bee": np.mean([all_looked[0].depth.mean(), all_looked[3].depth.mean()]),
    }
    assert [one["mean_depth"] for one in found["classes"]] == sorted(means.values())
    assert {one["name"]: one["mean_depth"] for one in found["classes"]} == pytest.approx(means)
    assert {one["name"]: one["images"] for one in found["classes"]} == {"ant": 1, "bee": 2}


def test_without_labels_there_is_no_accuracy(make_looked):
    found = figures.summarise([figures.row(make_looked(label=None))], NAMES)
    assert (found["labelled"], found["top1"], found["classes"]) == (0, None, [])


def test_the_summary_fits_json(all_looked):
    found = plain(figures.summarise([figures.row(one) for one in all_looked], NAMES))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
