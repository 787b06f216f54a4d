"""Depth priors with every way to encode positions and both similarities: what matters of the three.

    python -m avit_jax.study --config configs/study/priors.py

48 short trainings on the digits that come with the package, one seed each. A single cell says
little: read the differences, which are over all pairs that are alike in all else. Variants:
`:debug` is two cells of seconds.
"""

from avit_jax import config as configs
from avit_jax.methods.avit.prior_families import FAMILIES
from avit_jax.study import Study


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={"train.epochs": 12.0, "dense_twin": None, "log.tensorboard": False},
        axes={
            "method.prior": tuple(FAMILIES),
            "model.pos_embed": ("learned", "sinusoidal", "rope_2d"),
            "model.attention": ("dot", "cosine"),
        },
        budgets=(0.4, 0.5, 0.6),
        baselines={
            "method.prior": "gaussian",
            "model.pos_embed": "learned",
            "model.attention": "dot",
        },
    )
    return study.debug() if variant.debug else study
