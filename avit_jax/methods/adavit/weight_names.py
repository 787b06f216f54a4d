"""AdaViT's published names: query, key and value apart, policies inside the blocks they steer."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from avit_jax.methods.adavit.settings import KINDS, Settings

_logger = logging.getLogger(__name__)
# Those of the last blocks, which are counted from the first of all.
POLICIES = {
    "policies.heads": "blocks.{}.head_select.mlp_head",
    "policies.layers": "blocks.{}.layer_select.mlp_head",
    "policies.tokens": "blocks.{}.attn.token_select.mlp_head",
}
_POLICY = re.compile(r"blocks\.(\d+)\.(?:attn\.)?(head|layer|token)_select\.")


def has_policies(state_dict: Mapping[str, Any]) -> bool:
    """Whether any policy is among the names; plain weights have none."""
    return any(_POLICY.match(name) for name in state_dict)


def without_switched_off(state_dict: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Without policies of kinds and blocks that decide nothing under `settings`.

    Weights are published with all policies, and the settings say which of them to use. A warning
    names those that are dropped.
    """
    kept, dropped = {}, {kind: set() for kind in KINDS}
    for name, array in state_dict.items():
        if found := _POLICY.match(name):
            block, kind = int(found[1]), f"{found[2]}s"
            if kind not in settings.chosen or block < settings.first_layer(kind):
                dropped[kind].add(block)
                continue
        kept[name] = array
    listed = [
        f"{kind} (block{'s' * (len(blocks) > 1)} {', '.join(map(str, sorted(blocks)))})"
        for kind, blocks in dropped.items()
        if blocks
    ]
    if listed:
        _logger.warning(
            "policies that the settings switch off are dropped from these weights: %s.",
            ", ".join(listed),
        )
    return kept
