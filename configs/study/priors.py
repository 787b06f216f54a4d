"""Depth priors on the digits: every family with its own shape, one seed.

    python -m avit_jax.study --config configs/study/priors.py

What is compared is the accuracy at equal GMACs. One seed says little about a single cell: read the
differences over the whole grid, whose pairs are alike in all but the prior.
"""

from avit_jax import config as configs
from avit_jax.study import Study


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring. Variants: `debug`."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={"dense_twin": None, "train.epochs": 18.0, "log.tensorboard": False},
        axes={
            "method.prior": (
                "gaussian", "laplace", "student_t", "cauchy", "lognormal", "skew_normal",
                "geometric", "uniform",
            ),
        },
        budgets=(0.45, 0.55, 0.7),
        baselines={"method.prior": "gaussian"},
    )  # fmt: skip
    return study.debug() if variant.debug else study
