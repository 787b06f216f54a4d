"""What devices send to each other, read from programs that this machine's compiler makes."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from avit_jax.forecast.collectives import traffic
from avit_jax.forecast.compiled_text import Text
from avit_jax.runtime.device_mesh import AXES, make_mesh

SIZE = 1024  # float32 of each device: 4,096 bytes
# What a TPU's compiler writes: parts of one gather with one channel, and a reduce-scatter.
OF_A_TPU = """
%fused.1 (p: bf16[1,768,384]) -> bf16[1,768,3072] {
  %all-gather.1 = bf16[1,768,3072]{2,1,0} all-gather(%p), channel_id=8, replica_groups=mesh['data'=32,'fsdp'=8] {'fsdp'}, dimensions={2}
}
%fused.2 (p: bf16[1,768,384]) -> bf16[1,768,3072] {
  %all-gather.2 = bf16[1,768,3072]{2,1,0} all-gather(%p), channel_id=8, replica_groups=mesh['data'=32,'fsdp'=8] {'fsdp'}, dimensions={2}
}
%all-reduce-scatter.4 (p: bf16[768,768]) -> bf16[96,768] {
  %all-reduce.1 = (bf16[768,768]{1,0}, bf16[8]{0}) all-reduce(%p, %q), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, to_apply=%add
}
%body (carry: s32[]) -> s32[] {
  %start = bf16[1,768,3072]{2,1,0} fusion(%x), kind=kCustom, calls=%fused.1
  %done = bf16[1,768,3072]{2,1,0} fusion(%start), kind=kCustom, calls=%fused.2
  %scattered = bf16[96,768]{1,0} fusion(%done), kind=kCustom, calls=%all-reduce-scatter.4
}
ENTRY %main (x: f32[]) -> f32[] {
  %loop = s32[] while(%x), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"12"}}
}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("collective", "kind", "bytes_sent"),
    [
        (lambda x: jax.lax.psum(x, AXES), "all-reduce", 2 * 4 * SIZE * 7 / 8),
        (lambda x: jax.lax.all_gather(x, "fsdp"), "all-gather", 4 * SIZE * 4 * 3 / 4),
        (lambda x: jax.lax.psum_scatter(x, "fsdp", tiled=True), "reduce-scatter", 4 * SIZE * 3 / 4),
        (lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), "collective-permute", 4 * SIZE),
    ],
)
def test_a_collective_is_counted_with_the_bytes_that_a_device_sends(collective, kind, bytes_sent):
    mesh = make_mesh(2, 4)
    sharded = jax.shard_map(
        collective, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False
    )
    text = jax.jit(sharded).lower(np.ones(8 * SIZE, np.float32)).compile().as_text()
    found = traffic(Text(text), 8)
    assert list(found) == [kind]
    assert found[kind].count == 1
    assert found[kind].bytes == pytest.approx(bytes_sent)


def test_parts_of_one_collective_are_one_and_loops_count_as_often_as_they_run():
    found = traffic(Text(OF_A_TPU), 256)
    gathered, scattered = 2 * 768 * 3072, 2 * (768 * 768 + 8)
    assert found["all-gather"] == (1, 12, pytest.approx(12 * gathered * 7 / 8))
    assert found["reduce-scatter"] == (1, 12, pytest.approx(12 * scattered * 7 / 8))
    assert "all-reduce" not in found
