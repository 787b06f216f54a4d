"""Costs as AdaViT's published tables have them: every entry, and the worked examples."""

import dataclasses

import numpy as np
import pytest

from avit_jax.models import costs
from avit_jax.models.t2t import T2TShape
from avit_jax.models.upstream_costs import upstream_gmacs
from avit_jax.models.vit import ViTShape
from avit_jax.types import Usage
from tests.parity.golden import load

SHAPES = {
    "deit_s": ViTShape(embed_dim=384, num_heads=6),
    "t2t_19": T2TShape(embed_dim=448, depth=19, num_heads=7, mlp_ratio=3.0),
}
CLOSE = 3e-8  # the tables are float32


@pytest.mark.parametrize("name", SHAPES)
def test_every_entry_of_the_table_is_reproduced(name):
    table = load(f"adavit/flops_dict_{name}")["flops_gmacs"]
    heads, tokens, attend, feed = (
        index.reshape(-1) for index in np.meshgrid(*map(np.arange, table.shape), indexing="ij")
    )
    usage = Usage(
        tokens=(np.arange(table.shape[1] - 1) < tokens[:, None])[None],
        heads=(np.arange(table.shape[0] - 1) < heads[:, None])[None],
        halves=(np.stack([attend, feed], axis=-1) > 0)[None],
    )
    shape = dataclasses.replace(SHAPES[name], depth=1)
    found = upstream_gmacs(shape, usage)
    fixed = found[heads == 0]
    assert len(np.unique(fixed)) == 1, "a block without heads is free"
    some = tokens > 0  # without any token, upstream looks nothing up
    np.testing.assert_allclose((found - fixed[0])[some], table.reshape(-1)[some], atol=CLOSE)


@pytest.mark.parametrize("name", SHAPES)
def test_the_worked_examples_are_reproduced(name):
    recorded, shape = load(f"adavit/flops_dict_{name}"), SHAPES[name]
    heads, halves, tokens = (
        recorded[f"ex/{kind}_select"].swapaxes(0, 1) > 0 for kind in ("head", "layer", "token")
    )
    # The first block has no policy over heads and halves: it runs all of them.
    heads, halves = (
        np.concatenate([np.ones((1, *kept.shape[1:]), bool), kept]) for kept in (heads, halves)
    )
    usages = {
        "gflops": Usage(tokens=tokens, heads=heads, halves=halves),
        "gflops_no_head": Usage(tokens=tokens, halves=halves),
        "gflops_only_token": Usage(tokens=tokens),
    }
    for key, usage in usages.items():
        found = upstream_gmacs(shape, usage)
        np.testing.assert_allclose(found, recorded[f"ex/{key}"], rtol=2e-7)


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_skipped_costs_what_is_published_for_the_whole_model(name):
    shape = SHAPES[name]
    everything = Usage(tokens=np.ones((shape.depth, 1, shape.num_tokens), bool))
    recorded = load(f"adavit/flops_dict_{name}")["full_model_gflops"]
    np.testing.assert_allclose(upstream_gmacs(shape, everything), [recorded], rtol=2e-7)
    # Norms are charged, and the rest is what is counted here.
    np.testing.assert_allclose(recorded, costs.dense_gmacs(shape), rtol=0.005)


@pytest.mark.parametrize(("name", "fixed"), [("deit_s", 0.06), ("t2t_19", 0.33)])
@pytest.mark.parametrize(
    "changes",
    [{"num_classes": 10}, {"image_size": 64}, {"distilled": True}, {"depth": 2}],
    ids=str,
)
def test_written_down_costs_are_those_of_the_published_models_only(name, fixed, changes):
    published = SHAPES[name]
    other = dataclasses.replace(published, **changes)
    assert fixed_gmacs(published) == pytest.approx(fixed, abs=1e-9)
    counted = (costs.embedding(other) + costs.readout(other)) / costs.GIGA
    assert fixed_gmacs(other) == pytest.approx(counted, abs=1e-9)


def fixed_gmacs(shape):
    """What is charged where no block has any head."""
    usage = Usage(
        tokens=np.ones((shape.depth, 1, shape.num_tokens), bool),
        heads=np.zeros((shape.depth, 1, shape.num_heads), bool),
    )
    (cost,) = upstream_gmacs(shape, usage)
    return cost
