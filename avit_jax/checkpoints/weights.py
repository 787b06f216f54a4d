"""Where weights come from: a run's checkpoint, another run, or somebody's file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from avit_jax import config as configs
from avit_jax.checkpoints import run_identity
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.workdir import nothing_in
from avit_jax.config.defaults import Init
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params, abstract, map_paths
from avit_jax.pretrained import npz
from avit_jax.pretrained.arrays import not_finite
from avit_jax.pretrained.fit import refuse_other_classes
from avit_jax.pretrained.pixels import for_our_pixels
from avit_jax.pretrained.torch_objects import Unreadable
from avit_jax.pretrained.weights import load_torch
from avit_jax.pretrained.written_pixels import written_pixels
from avit_jax.runtime import stores
from avit_jax.runtime.device_mesh import abstract_on, put_on
from avit_jax.runtime.processes import in_all_or_none

EXPORTED_WEIGHTS = "weights.npz"  # of an exported folder

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters on the mesh, and where they are from.

    Attributes:
        params: sharded like a state's.
        origin: for people, such as "step 4 of runs/digits (ema)" or the address of a file.
        step: of the checkpoint; `None` for a file.
    """

    params: Params
    origin: str
    step: int | None


def initial_weights(
    init: Init, model: Model, mesh: Mesh, *, weights: str = "auto"
) -> Weights | None:
    """What `config.init` says to start from; `None` where it says nothing.

    Weights of a plain backbone, such as a DeiT's, also start a method that has parameters of its
    own: those are fresh, and a warning names them.

    Args:
        init: the settings that say it.
        model: that will use them.
        mesh: to put them on.
        weights: "auto", "ema" or "raw", as in `weights_of_run` and `load_torch`.

    Raises:
        UserError: they are not there, or do not fit.
    """
    if init.weights:
        return weights_of_file(init.weights, model, mesh, pixels=init.pixels, weights=weights)
    if init.workdir:
        workdir = stores.as_path(init.workdir)
        found = weights_of_run(workdir, model, mesh, weights=weights, plain=True)
        if found is None:
            raise nothing_in(workdir)
        whole = model.completed(found.params)
        fresh = {name: whole[name] for name in whole.keys() - found.params.keys()}
        kept = {name: found.params[name] for name in whole.keys() & found.params.keys()}
        return dataclasses.replace(found, params=kept | put_on(mesh, fresh))
    return None


def weights_of_file(
    address: str,
    model: Model,
    mesh: Mesh,
    *,
    pixels: str | None = None,
    weights: str = "auto",
    new_classifier: bool = True,
) -> Weights:
    """Somebody else's weights for a model, fitted to it as `Model.from_torch` does.

    Every process reads the file, or none goes on.

    Args:
        address: what `load_torch` takes.
        model: that will use them.
        mesh: to put them on.
        pixels: a key of `pixels.PIXELS`; `None` takes what the kind of file is known for. A file
            that says itself which it takes, as those that `save_torch` writes can, is believed.
        weights: "auto", "ema" or "raw", which of a training checkpoint's as in `load_torch`.
        new_classifier: whether one for other classes may be replaced by a fresh one.

    Raises:
        UserError: no such file, no weights, or they do not fit.
    """

    def read() -> Params:
        state_dict = load_torch(address, weights=weights)
        if not new_classifier:
            refuse_other_classes(model.timm_named(state_dict), model.shape)
        known = "symmetric" if npz.is_google_research(state_dict) else "imagenet"
        takes = written_pixels(address) or pixels or known
        return for_our_pixels(model.from_torch(state_dict), takes, model.shape)

    params = put_on(mesh, in_all_or_none(read))
    logger.info("weights of %s", address)
    return Weights(params, address, None)


def weights_of_run(
    workdir: Path, model: Model, mesh: Mesh, *, weights: str = "auto", plain: bool = False
) -> Weights | None:
    """The weights of a trained run; `None` if there is no run or no checkpoint.

    Args:
        workdir: of the run.
        model: that will use them; its method may be another one.
        mesh: to put them on.
        weights: "auto" (the moving average where there is one), "ema" or "raw".
        plain: whether they may lack what the model has beside its backbone.

    Raises:
        UserError: the parameters have other shapes or are not finite, or there is no moving
            average.
    """
    saved = workdir / "config.json"
    if not saved.exists():
        return None
    config = configs.read(saved)
    trained = configs.make_model(config)
    found, wanted, backbone = map(
        _sizes, (trained.abstract_params(), model.abstract_params(), abstract(model.shape.build))
    )
    resized = _resized(trained, model)
    if found != wanted and not (plain and found == backbone) and resized is None:
        names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        raise UserError(
            f"the weights in {workdir} ({config.model.name}) have other sizes than this model (in "
            f"{', '.join(names)}): make embed_dim, depth, image_size, patch_size, num_classes and "
            "the method the same."
        )
    if weights == "ema" and not config.train.ema_decay:
        raise UserError(
            f"{workdir} keeps no moving average of its weights: write --config.eval.weights auto."
        )
    # Only the weights are read: a run may be used after its optimiser has gone out of fashion.
    name = "ema" if config.train.ema_decay and weights != "raw" else "params"
    target = {name: abstract_on(mesh, trained.abstract_params())}
    run = run_identity.read(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep, run=run)
    restored = checkpoints.restore(target, partial=True)
    checkpoints.close()
    if restored is None:
        return None
    step, state = restored
    origin = f"step {step} of {workdir} ({name})"
    if checkpoints.passed_over:
        origin += f", for newer ones cannot be used: {', '.join(checkpoints.passed_over)}"
    in_all_or_none(lambda: _refuse_not_finite(state[name], origin))
    logger.info("weights (%s) of step %d in %s", name, step, workdir)
    params = state[name] if resized is None else put_on(mesh, resized(state[name]))
    return Weights(params, origin, step)


def _resized(trained: Model, model: Model) -> Callable[[Params], Params] | None:
    """What makes parameters fit a model that takes images of another size; `None` if it does not.

    Positions are interpolated, and kernels of a cascade resized, as in weights of others.
    """
    if model.shape.image_size == trained.shape.image_size:
        return None
    try:
        alike = trained.on_images_of(model)
    except UserError:  # it has no such form: what differs is said of the sizes
        return None
    if _sizes(alike.abstract_params()) != _sizes(model.abstract_params()):
        return None

    def resize(params: Params) -> Params:
        whole = multihost_utils.process_allgather(params, tiled=True)
        return alike.from_torch(trained.to_torch(whole))

    return resize


def weights_of_export(folder: Path, model: Model, mesh: Mesh) -> Weights:
    """The weights of a folder that `--mode export` wrote.

    Raises:
        UserError: they cannot be read, are of another model, or not finite.
    """
    file = folder / EXPORTED_WEIGHTS
    try:
        params = unflatten_dict(npz.read(stores.on_local_disk(file)), sep="/")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}): export the run again.") from error
    except Unreadable as damage:
        raise UserError(f"{file} {damage}, or export the run again.") from damage
    if _sizes(params) != _sizes(model.abstract_params()):
        raise UserError(
            f"the weights in {file} are not those that {folder / 'export.json'} describes: export "
            "the run again."
        )
    placed, origin = put_on(mesh, params), f"the export {folder}"
    in_all_or_none(lambda: _refuse_not_finite(placed, origin))
    return Weights(placed, origin, None)


def _refuse_not_finite(params: Params, origin: str) -> None:
    """Raises UserError for parameters with a NaN or infinity in what this process has of them."""
    broken: list[str] = []

    def check(path: str, leaf: jax.Array) -> None:
        if any(not_finite(np.asarray(shard.data)) for shard in leaf.addressable_shards):
            broken.append(path)

    map_paths(check, params)
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise UserError(
            f"the weights in {origin} are NaN or infinite in {', '.join(broken[:3])}{more}: take "
            "those of an earlier step, or train again at a lower learning rate."
        )


def _sizes(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.shape, params)
