"""Sums over the images of a report, against sums by hand."""

import dataclasses
import json

import numpy as np
import pytest

from avit_jax.runtime.files import plain
from avit_jax.viz import image_statistics

NAMES = ("ant", "bee", "cow")
PARTS = ("heads", "halves")


def rows(images) -> list[image_statistics.Row]:
    return [image_statistics.row(one) for one in images]


@pytest.fixture
def all_looked(make_looked):
    labels, answers = (1, 0, None, 1), (1, 1, 2, 1)
    return [
        make_looked(seed=seed, label=label, answer=answer, name=f"{seed}.png")
        for seed, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]


def test_the_summary_counts_every_token_of_every_image(all_looked):
    found = image_statistics.summarise(rows(all_looked), NAMES, gmacs_dense=6.0)
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
    found = image_statistics.summarise(rows(all_looked), NAMES, gmacs_dense=6.0)
    assert (found["labelled"], found["top1"]) == (3, pytest.approx(2 / 3))
    means = {
        "ant": all_looked[1].depth.mean(),
        "bee": np.mean([all_looked[0].depth.mean(), all_looked[3].depth.mean()]),
    }
    assert [one["mean_depth"] for one in found["classes"]] == sorted(means.values())
    assert {one["name"]: one["mean_depth"] for one in found["classes"]} == pytest.approx(means)
    assert {one["name"]: one["images"] for one in found["classes"]} == {"ant": 1, "bee": 2}


def test_without_labels_there_is_no_accuracy(make_looked):
    found = image_statistics.summarise(rows([make_looked(label=None)]), NAMES, gmacs_dense=6.0)
    assert (found["labelled"], found["top1"], found["classes"]) == (0, None, [])


def test_the_summary_fits_json(all_looked):
    found = plain(image_statistics.summarise(rows(all_looked), NAMES, gmacs_dense=6.0))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_shares_of_heads_and_halves_are_means_over_layers_images_and_classes(all_looked):
    generator = np.random.default_rng(3)
    chosen = [
        dataclasses.replace(
            one, heads=generator.random((5, 3)) < 0.5, halves=generator.random((5, 2)) < 0.5
        )
        for one in all_looked
    ]
    found = image_statistics.summarise(rows(chosen), NAMES, gmacs_dense=6.0)
    heads, halves = (np.stack([getattr(one, name) for one in chosen]) for name in PARTS)
    tokens = np.stack([one.live for one in chosen])
    means = {"tokens": tokens.mean(), "heads": heads.mean(), "halves": halves.mean()}
    assert found["kept"] == pytest.approx(means)
    per_layer = found["kept_per_layer"]
    np.testing.assert_allclose(per_layer["heads"], heads.mean((0, 2)))
    np.testing.assert_allclose(per_layer["attention"], halves[..., 0].mean(0))
    np.testing.assert_allclose(per_layer["mlp"], halves[..., 1].mean(0))
    (bee,) = [one for one in found["classes"] if one["name"] == "bee"]
    assert bee["kept"]["heads"] == pytest.approx(heads[[0, 3]].mean())
    assert bee["gmacs"] == pytest.approx(np.mean([chosen[0].gmacs, chosen[3].gmacs]))
    assert found["rows"][2]["kept"]["halves"] == pytest.approx(halves[2].mean())


def test_without_heads_and_halves_only_tokens_are_counted(all_looked):
    found = image_statistics.summarise(rows(all_looked), NAMES, gmacs_dense=6.0)
    assert found["kept"].keys() == {"tokens"}
    assert found["kept_per_layer"] == {}
    assert [row["right"] for row in found["rows"]] == [True, False, None, True]
