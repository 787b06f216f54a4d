"""Layer, root mean square and instance norms in a model whose tokens halt: three seeds of each.

    python -m avit_jax.study --config configs/study/norms.py

Variants: `:debug` is two cells of seconds.
"""

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.study import Study


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={"train.epochs": 12.0, "dense_twin": None, "log.tensorboard": False},
        axes={"model.norm": ("layernorm", "rmsnorm", "instancenorm")},
        seeds=range(3),
        folds=recipes.folds_of_digits(3),
        folds_in_turn=True,
        budgets=(0.4, 0.5, 0.6),
        baselines={"model.norm": "layernorm"},
    )
    return study.debug() if variant.debug else study
