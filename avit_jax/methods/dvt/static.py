"""Static execution of cascades: images that go on, in batches whose sizes are numbers of a program.

The first exit runs for the whole batch. Behind an exit the images that go on are gathered into as
many places as the plan gives the next one, and with them what is handed over: before it is resized,
so that grids are made finer for these images alone. Where an exit has as many places as the one
before, nothing moves. Exact as long as every image that goes on finds a place, which the answer
says of each; gathers and one small sort of flags are all that data decides, no loop and no branch.

Tokens that halt inside of an exit are masked there and not left out: an exit costs what it costs
with everything live, for every place.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.methods.dvt import early_exit
from avit_jax.methods.forward import Call
from avit_jax.models import costs
from avit_jax.types import Output, Usage

_IMAGE_AXIS = {"states": 0, "relations": 1}  # of what is handed over


class StaticCascade:
    """The part of a cascade that `base.Model` asks of static execution; see `StaticBuffers`.

    A buffer is the batch of an exit behind the first. A cascade of a single exit is what its exit's
    method is.
    """

    @property
    def tokens_return(self) -> bool:
        return len(self.exits) == 1 and self.exits[0].tokens_return

    @property
    def static_parts(self) -> int:
        return len(self.exits) - 1 or self.exits[0].static_parts

    @property
    def static_most(self) -> int:
        return 1 if len(self.exits) > 1 else self.exits[0].static_most

    def static(
        self, network: Any, images: Array, exists: Array, capacities: tuple[int, ...]
    ) -> Output:
        if len(self.exits) > 1:
            return run(self, network, images, exists, capacities)
        return self.exits[0].static(network.exit(0), images, exists, capacities)

    def static_work(self, usage: tuple[Usage, ...]) -> Array:
        if len(self.exits) == 1:
            return self.exits[0].static_work(usage)
        return jnp.stack([used.tokens.any((0, 2)) for used in usage[1:]]).astype(jnp.int32)

    def static_gmacs(self, usage: tuple[Usage, ...], capacities: tuple[int, ...]) -> float:
        if len(self.exits) == 1:
            return self.exits[0].static_gmacs(usage, capacities)
        sizes = (usage[0].tokens.shape[1], *capacities)
        each = zip(sizes, self.stages, strict=True)
        return sum(size * costs.dense_gmacs(shape, self.layers) for size, shape in each)


def run(
    model: Any, network: Any, images: Array, exists: Array, capacities: tuple[int, ...]
) -> Output:
    """All exits on one device's images.

    Args:
        model: the cascade.
        network: of all exits.
        images: `[B, H, W, 3]`, normalised.
        exists: `[B]` bool; images that only fill up the batch are False and take no places.
        capacities: images of each exit behind the first, at most B; they do not rise.

    Returns:
        `logits`, `exits`, `usage` and `fits`, False for an image that had no place in an exit. It
        is in none from there on, and has the answer of the exit before.
    """
    size, here = len(images), images
    place = None  # of each image of the batch among those of the exit; `None`: its own
    reached, fits, output = exists, jnp.ones(size, bool), None
    answers, usages = [], []
    for index, capacity in enumerate((size, *capacities)):
        if capacity < size:
            size, order = capacity, jnp.argsort(~reached, stable=True)
            held = order[:size]
            output = _of_images(model, output, held if place is None else place[held])
            here, place = images[held], jnp.argsort(order)
            fits = fits & (~reached | (place < size))
            reached = reached & fits
        output = model.run_exit(index, network, here, Call(), output)
        logits = _of_batch(output.logits, place, axis=0)
        answers.append(jnp.where(reached[:, None], logits, answers[-1]) if answers else logits)
        used = output.usage[0]
        usage = jax.tree.map(lambda ran, place=place: _of_batch(ran, place, axis=1), used)
        usages.append(early_exit.usage_of(usage, reached))
        if index < len(capacities):
            leaves, _ = early_exit.sure(logits, model.settings.confidences[index])
            reached = reached & ~leaves
    return Output(logits=answers[-1], usage=tuple(usages), exits=jnp.stack(answers), fits=fits)


def _of_images(model: Any, output: Output, places: Array) -> Output:
    """What an exit shows, of the images in some of its places.

    Places `[b]` that there are not are those of images which fill up: anything will do for them.
    """
    shown = {
        name: jnp.take(output.aux[name], places, axis=_IMAGE_AXIS[name], mode="clip")
        for name in model.shown
    }
    return Output(logits=output.logits, usage=(), aux=shown)


def _of_batch(said: Array, place: Array | None, *, axis: int) -> Array:
    """What an exit says of its places, of every image of the batch; anything without a place."""
    return said if place is None else jnp.take(said, place, axis=axis, mode="clip")
