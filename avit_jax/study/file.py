"""Study files by their names or paths: `priors`, `priors:debug`, `configs/study/priors.py`."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from avit_jax.config import by_name
from avit_jax.errors import UserError
from avit_jax.study.design import Study


def load(name: str) -> Study:
    """The study of a file, whose `get_study` takes what stands behind the colon.

    Raises:
        UserError: there is no such file, it describes no study, or what it describes cannot be.
    """
    written, _, variant = name.partition(":")
    file = folder() / f"{written.removesuffix('.py')}.py"
    path = Path(written) if os.path.isfile(written) else file
    if not path.is_file():
        raise UserError(
            f"there is no study file {written!r}: write 'priors', or another name of {folder()}, "
            "or the path of a file."
        )
    try:
        get_study = runpy.run_path(str(path)).get("get_study")
        study = get_study(variant or None) if get_study else None
    except (SyntaxError, TypeError, NameError, AttributeError, ImportError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(study, Study):
        raise UserError(
            f"{path} describes no study: write a function get_study(arg) in it that returns an "
            "avit_jax.study.Study, as those in configs/study do."
        )
    return study


def default_workdir(name: str) -> Path:
    """`runs/study/<name>`, with its variant."""
    file, _, variant = name.partition(":")
    return Path("runs", "study", Path(file).stem + (f"_{variant}" if variant else ""))


def folder() -> Path:
    """Where the study files of this project lie."""
    return by_name.folder() / "study"
