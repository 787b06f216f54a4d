"""Both ways to run the halves of a block whose images keep some tokens and some of their heads.

    python benchmarks/chosen_heads.py

`packed` gathers the live rows of all images into large products and masks dropped heads in them
(`inference/packed_halves.py`). `left out` treats one image after the other and computes kept heads
only, with weights fetched for each (`inference/chosen_heads.py`). `whole` computes everything.
All give the same tokens, which is checked. They take turns in one process; ratios are paired.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.execution import packed_halves
from avit_jax.execution.chosen_heads import AttentionHalf, MlpHalf
from avit_jax.execution.plan import default_plan, with_heads_left_out
from avit_jax.methods.adavit import compact as selected
from avit_jax.models.layers import Block, BlockShape
from avit_jax.runtime.environment import environment, start_again_prepared
from avit_jax.runtime.paired_timing import race, speedup
from avit_jax.runtime.tables import columns
from avit_jax.types import Gates

# Width, heads, tokens of an image: DeiT-T at 128 and 224 px, DeiT-S and DeiT-B at 224 px.
SIZES = ((192, 3, 65), (192, 3, 197), (384, 6, 197), (768, 12, 197))


def contenders(
    width: int, num_heads: int, num_tokens: int, *, images: int, kept: float
) -> dict[str, Callable[[], Array]]:
    """Functions that run both halves on the same images, of which they keep a share."""
    rng = np.random.default_rng(0)
    block = Block(BlockShape(embed_dim=width, num_heads=num_heads), rngs=nnx.Rngs(0))
    tokens = jnp.asarray(rng.normal(size=(images, num_tokens, width)), jnp.float32)
    live = jnp.asarray(rng.uniform(size=tokens.shape[:2]) < kept).at[:, 0].set(True)
    chosen = round(kept * num_heads)
    heads = np.zeros((images, num_heads), bool)
    for row in heads:
        row[rng.permutation(num_heads)[:chosen]] = True
    data = tokens, selected.Work(live=live, heads=jnp.asarray(heads))
    plan = default_plan(num_tokens, images, num_heads=num_heads)
    narrow = with_heads_left_out(plan, num_heads)

    def whole(tokens: Array, work: selected.Work) -> Array:
        gates = Gates(selected=work.live, heads=work.heads)
        return selected.whole_block(block, tokens, (gates, gates), plan)

    def packed(tokens: Array, work: selected.Work) -> Array:
        space = packed_halves.start(tokens, plan)
        rows = packed_halves.rows_of(work.live, work.heads, len(space.mixed))
        for run in (packed_halves.attend, packed_halves.feed):
            tokens, space = run(block, tokens, space, rows, plan, effect="channels")
        return tokens

    def left_out(tokens: Array, work: selected.Work) -> Array:
        for half in (AttentionHalf(block, "channels"), MlpHalf(block, "channels")):
            tokens = selected.add_half(half, tokens, work, narrow)
        return tokens

    ways = {"whole": whole, "packed": packed, "left out": left_out}
    # As arguments: a program must not know in advance what is kept.
    return {name: functools.partial(jax.jit(way), *data) for name, way in ways.items()}


def main() -> None:
    """Runs all sizes and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--kept", default="0.5,0.67,1.0", help="shares of tokens and of heads")
    parser.add_argument("--turns", type=int, default=25)
    args = parser.parse_args()
    start_again_prepared([sys.executable, *sys.argv])
    print(json.dumps(environment(("jax",)), indent=2), flush=True)
    rows = []
    for width, num_heads, num_tokens in SIZES:
        for kept in map(float, args.kept.split(",")):
            calls = contenders(width, num_heads, num_tokens, images=args.images, kept=kept)
            answers = [np.asarray(call()) for call in calls.values()]
            if max(np.abs(answer - answers[0]).max() for answer in answers) > 1e-4:
                sys.exit(f"width {width}: the tokens differ")
            times = race(calls, turns=args.turns)
            row = [str(width), str(num_tokens), f"{round(kept * num_heads)} of {num_heads}"]
            row += [f"{1e3 * times['whole'].median():.1f}"]
            for way in ("packed", "left out"):
                ratio = speedup(times["whole"], times[way])
                row.append(f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})")
            rows.append(tuple(row))
    headings = ("width", "tokens", "heads kept", "whole, ms", "packed", "left out")
    print(columns([*headings[:4], *(f"speed-up {way}" for way in headings[4:])], rows))


if __name__ == "__main__":
    main()
