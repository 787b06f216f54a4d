"""A jitted training step of a small model, with batches that go wrong in various ways."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax import create_model
from avit_jax.config.optim import Optim
from avit_jax.data.mix import Mix
from avit_jax.methods import plain as plain_method
from avit_jax.runtime.device_mesh import make_mesh, replicated
from avit_jax.training import optimizers
from avit_jax.training import step as steps

RATE = 0.01
WITHOUT_RATE = 7  # the one step whose learning rate is NaN
FROZEN = ("pos_embed", "patch_embed")
SIZES = {
    "patch_size": 16,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 1.0,
    "num_classes": 5,
}
RECIPE = steps.Recipe(
    total_steps=10,
    seed=0,
    accumulation=1,
    label_smoothing=0.1,
    ema_decay=0.0,
    log_every=3,
    mix=Mix(),
)
OPTIM = Optim()


@jax.custom_vjp
def overflow_backwards(logits, when):
    """The logits as they are; `when` it is true, their gradient is infinite."""
    return logits


overflow_backwards.defvjp(
    lambda logits, when: (logits, when),
    lambda when, gradient: (gradient * jnp.where(when, jnp.inf, 1.0), None),
)


class Model(plain_method.Model):
    """The dense model; over-bright images overflow its gradient though not its loss."""

    def init(self, key):
        """Draws without JAX, which would have to compile them."""
        generator = np.random.default_rng(0)
        return jax.tree.map(
            lambda leaf: jnp.asarray(generator.normal(0, 0.1, leaf.shape), leaf.dtype),
            self.abstract_params(),
        )

    def forward(self, network, images, call):
        output = super().forward(network, images, call)
        return output.replace(logits=overflow_backwards(output.logits, images.max() > 100))


class RandomModel(Model):
    """Draws in training, and holds positions and patch embedding fixed."""

    def trainable(self, params):
        return {
            name: jax.tree.map(lambda _, name=name: name not in FROZEN, part)
            for name, part in params.items()
        }


class Trainer:
    """A jitted step with the state in front of it."""

    def __init__(self, model, *, optimizer=None, **recipe):
        self.model = model
        self.recipe = dataclasses.replace(RECIPE, **recipe)
        # Updates proportional to the gradients let the parameters show what the gradients were.
        optimizer = optimizer or optimizers.scale_by_rate_at_step(rate)
        mesh = make_mesh(devices=jax.devices()[:1])
        place = replicated(mesh)
        self.start = jax.device_put(steps.init_state(model, optimizer, self.recipe), place)
        self.step = jax.jit(
            steps.make_train_step(model, optimizer, rate, self.recipe, mesh), out_shardings=place
        )
        self.skip = jax.jit(steps.make_skip_step(self.recipe), out_shardings=place)

    def run(self, batches, state=None):
        """States and averages behind each batch."""
        state = self.start if state is None else state
        states, averages = [], []
        for batch in batches:
            state, average = self.step(state, batch)
            states.append(state)
            averages.append(average)
        return states, averages


def rate(step):
    """The learning rate: the same in every step but one."""
    return jnp.where(step == WITHOUT_RATE, jnp.nan, RATE)


def batch(seed: int, size: int = 4, **changes) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    rows = {
        "image": generator.integers(0, 256, (size, 32, 32, 3)).astype(np.float32),
        "label": generator.integers(0, 5, size, dtype=np.int32),
        "substituted": np.zeros(size, bool),
    }
    return {name: jnp.asarray(array) for name, array in (rows | changes).items()}


def spoilt(seed: int) -> dict[str, jax.Array]:
    return batch(seed, image=batch(seed)["image"].at[2, 3, 4, 1].set(jnp.nan))


def over_bright(seed: int) -> dict[str, jax.Array]:
    return batch(seed, image=batch(seed)["image"].at[0, 0, 0, 0].set(1e5))


def make_model(kind: type = Model, **changes):
    named = create_model("deit_micro_patch4_32", **SIZES | changes)
    return kind(named.shape, named.settings)
