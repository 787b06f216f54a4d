"""Training on the rows of live tokens alone, with the gradients of masked execution.

Nothing that has halted reaches the loss where the depth prior is held against the distribution of
halting itself (`kl_reading = "halting"`): not the answer, not the ponder, not the weights. So it
may be left out of a step, which costs less the more tokens halt.

A token is live until *its own* scores halt it: those of images whose class token has halted still
enter ponder and prior.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.execution.row_block import StochasticDepth
from avit_jax.methods.avit import answers, halting, live_rows
from avit_jax.methods.avit.penalties import penalties
from avit_jax.methods.avit.rules import Rules
from avit_jax.methods.forward import Call, RowCapacities, embed, layer_inputs
from avit_jax.models.backbone import Backbone
from avit_jax.models.block import kept_updates
from avit_jax.models.shape import Shape
from avit_jax.runtime.device_mesh import images_at, on_each_device
from avit_jax.types import Output, Usage


def check(model: Any) -> None:
    """Refuse what would learn something else on live rows.

    Raises:
        UserError: halted tokens matter to the loss, or draws differ from token to token.
    """
    if model.settings.kl_reading != "halting":
        raise UserError(
            "config.train.rows is 'live', but with config.method.kl_reading "
            f"{model.settings.kl_reading!r} tokens go on being scored once they have halted: write "
            "--config.method.kl_reading halting, or leave train.rows at 'all'."
        )
    if model.shape.tokens_keep_slots:
        raise UserError(
            "config.train.rows is 'live', but with config.model.mixer 'mlp' every token keeps its "
            "slot: leave train.rows at 'all'."
        )
    if model.shape.dropout_rate:
        raise UserError(
            f"config.train.rows is 'live', but config.model.dropout_rate {model.shape.dropout_rate}"
            " draws for every token of an image: write 0 (drop_path_rate may stay), or leave "
            "train.rows at 'all'."
        )


def forward(
    model: Any, network: Backbone, images: Array, call: Call, rows: RowCapacities
) -> Output:
    """As `Model.forward`, on live rows; see `base.Model.apply`."""
    shape = model.shape
    tokens = embed(network, images, call, dtype=halting.STREAM)
    rules = model.rules(network, images, call)
    graph, params = nnx.split(network.blocks)

    def of_one_device(
        params: Any, tokens: Array, rules: Rules, depth: StochasticDepth | None
    ) -> live_rows.Ran:
        ran = live_rows.run(
            shape,
            nnx.merge(graph, params),
            tokens,
            jnp.ones(len(tokens), bool),
            rows.capacities,
            rules,
            finished_leave=False,
            depth=depth,
        )
        return dataclasses.replace(ran, fits=ran.fits[None])

    depth = _stochastic_depth(shape, call, len(images))
    whole, first, second, third = map(images_at, (None, 0, 1, 2))
    outputs = live_rows.Ran(
        answer=first,
        states=None if shape.averages else second,
        live=second,
        weights=second,
        state=first,
        fits=first,
    )
    drawn = depth and StochasticDepth(kept=third, rate=whole)
    placed = dataclasses.replace(rules, strength=whole, offsets=whole, content=first)
    run = on_each_device(
        of_one_device, rows.mesh, inputs=(whole, first, placed, drawn), outputs=outputs
    )
    ran = run(params, tokens, rules, depth)

    heads = network.readout(ran.answer)
    record = {"weights": ran.weights}
    weighted, metrics = penalties(shape, model.settings, record, ran.state, rules.strength)
    unfinished = answers.running(shape, ran.live)
    counts = ran.live.sum(-1, dtype=jnp.int32).reshape(shape.depth, rows.mesh.size, -1).sum(-1)
    return Output(
        logits=heads.mean(0),
        usage=(Usage(tokens=unfinished),),
        fits=jnp.broadcast_to(ran.fits.all(), len(images)),
        penalties=weighted,
        metrics=metrics | {"halted": (~unfinished).mean(dtype=jnp.float32)},
        aux={"live_rows": counts.max(1), "head_logits": heads}
        | ({"features": ran.states} if call.features else {}),
    )


def _stochastic_depth(shape: Shape, call: Call, batch: int) -> StochasticDepth | None:
    """The draws of masked execution, of all layers and images."""
    if call.key is None or not shape.drop_path_rate:
        return None
    inputs = layer_inputs(shape, call)
    rates = inputs["drop_path_rate"]
    draw = jax.vmap(lambda rate, key: kept_updates(rate, key, batch))
    return StochasticDepth(kept=draw(rates, inputs["key"]), rate=rates)
