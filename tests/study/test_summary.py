"""What a study says, from made-up results of cells."""

import itertools

import numpy as np
import pytest

from avit_jax.study.summary import differences_of, settings_of, trainings_of


def point(right: str, **figures) -> dict:
    known = {"cross_entropy": 0.5, "gmacs": 0.01, "mean_depth": 3.0, "roughness": 0.8}
    share = right.count("1") / len(right)
    return {"images": len(right), "top1": share, "right": right} | known | figures


def cell(prior: str, seed: int, points: dict, fold: int | None = None, norm: str = "rms") -> dict:
    return {"labels": {"prior": prior, "norm": norm}, "seed": seed, "fold": fold, "points": points}


def test_folds_are_one_training_over_all_their_images():
    parts = [
        cell("laplace", 0, {"learnt": point("1", gmacs=0.02), "0.5": point("0")}, fold=1),
        cell("laplace", 0, {"learnt": point("101", gmacs=0.04)}, fold=0),
    ]
    (training,) = trainings_of(parts, folds=2)
    assert list(training["points"]) == ["learnt"]  # not all folds can be set to the budget
    learnt = training["points"]["learnt"]
    assert (learnt["images"], learnt["top1"]) == (4, 0.75)
    assert learnt["gmacs"] == pytest.approx(0.035)
    assert learnt["right"].tolist() == [True, False, True, True]
    assert trainings_of(parts[:1], folds=2) == []


def test_settings_are_means_over_their_seeds():
    cells = [
        cell("laplace", seed, {"learnt": point(right), "0.5": point(right, roughness=None)})
        for seed, right in enumerate(("11", "10", "00"))
    ]
    learnt, budget = settings_of(trainings_of(cells, 0), ["learnt", "0.5", "0.6"])
    assert (learnt["point"], learnt["seeds"]) == ("learnt", 3)
    assert learnt["top1"]["mean"] == 0.5
    assert learnt["top1"]["half_width"] == pytest.approx(4.302653 * 0.5 / np.sqrt(3), rel=1e-6)
    assert budget["roughness"] is None and learnt["roughness"]["mean"] == pytest.approx(0.8)


def test_differences_are_of_pairs_alike_in_all_else():
    answers = {"gaussian": "1100", "laplace": "1110"}
    cells = [
        cell(prior, seed, {"learnt": point(right)}, norm=norm)
        for prior, right in answers.items()
        for norm, seed in itertools.product(("rms", "layer"), (0, 1))
    ]
    cells.append(cell("laplace", 2, {"learnt": point("0000")}))  # without a partner
    (found,) = differences_of(trainings_of(cells, 0), {"prior": "gaussian"}, ["learnt", "0.5"])
    assert (found["option"], found["baseline"], found["pairs"]) == ("laplace", "gaussian", 4)
    assert found["top1"]["mean"] == 0.25 and found["sign_test"]["above"] == 4
    assert found["t_test"] is None
    assert found["by_image"]["count"] == 4
    # One image of four is answered rightly instead of wrongly, in all pairs.
    assert found["by_image"]["half_width"] == pytest.approx(3.182446 * 0.5 / 2, rel=1e-6)


def test_folds_in_turn_pair_seeds_of_the_same_images():
    cells = [
        cell(prior, seed, {"learnt": point(right)}, fold=seed % 2)
        for prior, rights in {
            "gaussian": ("10", "000", "00"),
            "laplace": ("11", "001", "01"),
        }.items()
        for seed, right in enumerate(rights)
    ]
    trainings = trainings_of(cells, 0)
    assert [one["fold"] for one in trainings] == [0, 1, 0] * 2
    (found,) = differences_of(trainings, {"prior": "gaussian"}, ["learnt"])
    assert found["pairs"] == 3 and found["top1"]["mean"] == pytest.approx((0.5 + 1 / 3 + 0.5) / 3)
    # Five images: of the first fold the second is better in both pairs, of the other the last.
    assert found["by_image"]["count"] == 5 and found["by_image"]["mean"] == pytest.approx(0.4)


def test_without_pairs_nothing_is_compared():
    cells = [
        cell("gaussian", 0, {"learnt": point("1")}),
        cell("laplace", 1, {"learnt": point("1")}),
    ]
    assert differences_of(trainings_of(cells, 0), {"prior": "gaussian"}, ["learnt"]) == []
