"""A second reading of all halting rules, token by token in plain Python."""

from __future__ import annotations

import numpy as np

HELD = 1.0 - 2.0**-10


def by_hand(model, scores: np.ndarray, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """What becomes of tokens with given scores.

    Args:
        model: whose settings and sizes are in force; offsets of gates play no part.
        scores: `[L, B, N]`, of every layer's gate.
        draws: `[L, B, patches]` bool, which patches take their neighbours along; all by default.

    Returns:
        `live` `[L, B, N]` and `weights` `[L, B, N]`; `ponder` and `depth` `[B, N]`.
    """
    settings, grid, prefix = model.settings, model.shape.grid, model.shape.num_prefix_tokens
    depth, batch, tokens = scores.shape
    layers = settings.max_depth or depth
    until = settings.spread_until or layers
    live = np.zeros(scores.shape, bool)
    weights = np.zeros(scores.shape)
    ponder, halted = np.zeros((batch, tokens)), np.zeros((batch, tokens))
    for image in range(batch):
        running, spent = set(range(tokens)), np.zeros(tokens)
        for layer in range(1, layers + 1):
            live[layer - 1, image, list(running)] = True
            ended = set()
            for token in running:
                score = scores[layer - 1, image, token] if layer >= settings.halt_from else 0.0
                if settings.class_tokens_halt is False and token < prefix:
                    score = 0.0
                if layer < settings.min_depth:
                    score = min(score, max(HELD * (1 - settings.eps) - spent[token], 0.0))
                if layer == layers or spent[token] + score > 1 - settings.eps:
                    ended.add(token)
                    weights[layer - 1, image, token] = 1 - spent[token]
                else:
                    weights[layer - 1, image, token] = score
            taken = set()
            if settings.spread_from <= layer <= until:
                for token in ended:
                    stays = draws is not None and not draws[layer - 1, image, token - prefix]
                    if token < prefix or stays:
                        continue
                    row, column = divmod(token - prefix, grid)
                    for other in running - ended:
                        if other < prefix:
                            continue
                        there, across = divmod(other - prefix, grid)
                        if beside(settings.spread, there - row, across - column):
                            taken.add(other)
            for token in taken:
                weights[layer - 1, image, token] = 1 - spent[token]
            for token in ended | taken:
                ponder[image, token] = layer + 1 - spent[token]
                halted[image, token] = layer
            running -= ended | taken
            for token in running:
                spent[token] += weights[layer - 1, image, token]
    return {"live": live, "weights": weights, "ponder": ponder, "depth": halted}


def beside(name: str, rows: int, columns: int) -> bool:
    """Whether a patch so many rows and columns away is a neighbour."""
    far, near = max(abs(rows), abs(columns)), min(abs(rows), abs(columns))
    if far == 0:
        return False
    return {
        "none": False,
        "nearby": rows == 0 and far == 1,
        "cross": far == 1 and near == 0,
        "diagonal": far == near == 1,
        "dilated": far == 2 and near == 0,
        "square": far == 1,
        "isotropic": far + near <= 2,
        "circle": far + near <= 3 and far <= 2,
        "double_square": far <= 2,
    }[name]
