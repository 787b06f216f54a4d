"""What a study file may say, and the cells that it describes."""

import pytest

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.errors import UserError
from avit_jax.study import Study

PRIORS = {"method.prior": ("gaussian", "laplace")}


def study(**changes) -> Study:
    return Study(**({"config": "avit_digits:ci", "axes": PRIORS} | changes))


def test_the_grid_is_every_value_with_every_other_seed_and_fold():
    cells = study(
        axes=PRIORS | {"rule": {"usual": {}, "early": {"method.eps": 0.3}}},
        settings={"train.epochs": 2.0},
        seeds=(5, 7),
        folds=recipes.folds_of_digits(3),
    ).cells()
    assert len(cells) == len({cell.name for cell in cells}) == 2 * 2 * 2 * 3
    last = cells[-1]
    assert last.name == "prior=laplace,rule=early,seed=7,fold=2"
    assert last.labels == {"method.prior": "laplace", "rule": "early"}
    config = last.config
    assert (config.method.prior, config.method.eps, config.seed) == ("laplace", 0.3, 7)
    assert config.data.eval_split == "forms 11,12,13,14" and config.train.epochs == 2.0
    assert cells[0].config.method.eps == 0.01 and cells[0].fold == 0


def test_folds_in_turn_are_one_for_each_seed():
    cells = study(seeds=(3, 4, 5), folds=recipes.folds_of_digits(2), folds_in_turn=True).cells()
    assert [(cell.seed, cell.fold) for cell in cells[::2]] == [(3, 0), (4, 1), (5, 0)]
    assert [cell.labels["method.prior"] for cell in cells] == ["gaussian", "laplace"] * 3
    splits = [cell.config.data.eval_split for cell in cells[::2]]
    assert splits[0] == splits[2] != splits[1]


def test_an_option_may_be_another_recipe():
    dense, halting = study(axes={"model": {"dense": {"config": "deit_digits"}, "avit": {}}}).cells()
    assert dense.config.model.name.startswith("deit")
    assert halting.config.model.name.startswith("avit")


def test_budgets_are_the_same_gmacs_for_all_cells():
    dense = configs.make_model(study().recipe({})).dense_gmacs()
    budgets = study(budgets=(0.5, "0.008gmacs")).budgets_in_gmacs()
    assert [one.unit for one in budgets.values()] == ["gmacs", "gmacs"]
    assert [one.amount for one in budgets.values()] == pytest.approx([dense / 2, 0.008], rel=1e-3)
    assert list(budgets) == [one.name for one in budgets.values()]


def test_dials_are_set_by_costs_of_the_evaluation_images_unless_a_study_says_otherwise():
    folds = recipes.folds_of_digits(2)
    first, second, *_ = study(folds=folds).cells()
    assert first.config.data == second.config.data  # a pair
    for cell in (first, second):
        assert cell.config.data.calibration_split == cell.config.data.eval_split
    (cell, _) = study(dial_on_evaluation=False).cells()
    assert cell.config.data.calibration_split is None
    (cell, _) = study(settings={"data.calibration_split": "train"}).cells()
    assert cell.config.data.calibration_split == "train"


def test_labels_of_evaluation_images_are_no_cascade_s_to_fit():
    cascade = {"config": "dvt_digits", "axes": {"optim.b1": (0.9,)}, "budgets": (0.5,)}
    with pytest.raises(UserError, match="fits its dial to labels"):
        study(**cascade).cells()
    assert study(**cascade, dial_on_evaluation=False).cells()
    assert study(**(cascade | {"budgets": ()})).cells()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"axes": {}}, "grid is empty, for it has no axis"),
        ({"axes": {"method.prior": ()}}, "axis 'method.prior' has no value"),
        ({"seeds": ()}, "no axis or no seed"),
        ({"seeds": (1, 1)}, "write each of them once"),
        ({"baselines": {"method.prior": "cauchy"}}, "write one of gaussian, laplace"),
        ({"baselines": {"model.norm": "rmsnorm"}}, "there is no such axis"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        study(**changes)


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"method.priors": ("laplace",)}, "cell priors=laplace,seed=0: .* 'method.prior'"),
        ({"method.prior": ("gaussian", "gauss")}, "cell prior=gauss,seed=0: .*'gauss'"),
        ({"model.patch_size": (8, 7)}, "cell patch_size=7,seed=0: "),
        ({"model.name": ("deit_tiny_patch16_224",)}, "under the key 'config'"),
        ({"letters": {"a b": {}, "a/b": {}}}, "2 cells .* name 'letters=a_b,seed=0'"),
    ],
)
def test_cells_that_cannot_be_are_named_before_any_is_trained(axes, sentence):
    with pytest.raises(UserError, match=sentence):
        study(axes=axes).cells()


def test_times_are_no_budgets_of_a_study():
    with pytest.raises(UserError, match="is a time: write a share"):
        study(budgets=("5ms",)).budgets_in_gmacs()


def test_the_debug_variant_is_two_short_cells():
    axes = {"method.prior": ("uniform", "gaussian", "laplace"), "method.eps": (0.01, 0.02)}
    whole = study(
        axes=axes,
        seeds=range(20),
        folds=recipes.folds_of_digits(7),
        settings={"train.epochs": 50.0, "log.tensorboard": False},
        budgets=(0.5, 0.6),
        baselines={"method.prior": "gaussian", "method.eps": 0.01},
    )
    short = whole.debug()
    cells = short.cells()
    assert [cell.name for cell in cells] == ["prior=uniform,seed=0", "prior=gaussian,seed=0"]
    assert all(cell.config.train.steps == 8 for cell in cells)
    assert not cells[0].config.log.tensorboard and len(short.budgets) == 1
    assert short.baselines == {"method.prior": "gaussian"}
    assert whole.axes is axes
