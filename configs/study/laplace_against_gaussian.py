"""Does a Laplace prior of depths beat a Gaussian one, at equal GMACs? Twenty pairs of trainings.

    python -m avit_jax.study --config configs/study/laplace_against_gaussian.py

The two of a pair have the same seed, so the same first weights and order of images, and the same
evaluation images. The seeds take the five folds of a cross-validation in turn, so that all 1,797
digits are evaluated, each by four pairs: the 510 of the usual split alone resolve little. Variants:
`:debug` is two cells of seconds.
"""

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.study import Study


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={"dense_twin": None, "log.tensorboard": False},
        axes={"method.prior": ("gaussian", "laplace")},
        seeds=range(20),
        folds=recipes.folds_of_digits(5),
        folds_in_turn=True,
        budgets=(0.4, 0.5, 0.6),
        baselines={"method.prior": "gaussian"},
    )
    return study.debug() if variant.debug else study
