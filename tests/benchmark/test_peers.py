"""Networks of other libraries stand beside ours only where they are the same."""

import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.benchmark import peers
from avit_jax.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_embed": "rope_2d"}, "pos_embed of the model is 'rope_2d', which timm's ViT does"),
        ({"mixer": "mlp"}, "mixer of the model is 'mlp', which timm's ViT does not have: leave"),
    ],
)
def test_a_peer_without_the_parts_of_the_model_is_refused(changes, message, monkeypatch):
    monkeypatch.setattr(peers, "device_for", lambda *_: "cpu")
    shape = create_model("deit_micro_patch4_32", **changes).shape
    with pytest.raises(UserError, match=message):
        peers.peer("timm_eager", shape, np.zeros((1, 32, 32, 3)), platform="cpu")
