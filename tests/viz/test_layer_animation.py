"""One frame per layer, in which exactly the computed patches keep their photograph."""

import numpy as np
from PIL import Image

from avit_jax.viz import layer_animation, palette

GRID, LAYERS = 4, 5


def patch_changes(frame: Image.Image, photograph: Image.Image) -> np.ndarray:
    """How far each patch of a frame is from the photograph, `[GRID, GRID]`."""
    side = photograph.width
    gap = np.abs(np.asarray(frame, int)[:side, :side] - np.asarray(photograph, int)).mean(-1)
    return gap.reshape(GRID, side // GRID, GRID, side // GRID).mean((1, 3))


def test_skipped_patches_are_dimmed_and_the_others_are_untouched(make_looked):
    looked = make_looked()
    drawn = layer_animation.frames(looked, grid=GRID, gmacs_dense=6.0)
    assert len(drawn) == LAYERS
    side = drawn[0].width
    photograph = Image.fromarray(looked.photograph).resize((side, side), Image.Resampling.LANCZOS)
    for frame, live in zip(drawn, looked.live[:, 1:], strict=True):
        changes = patch_changes(frame, photograph)
        np.testing.assert_array_equal(changes == 0, live.reshape(GRID, GRID))
        assert changes[changes > 0].min(initial=99) > 20


def test_patches_that_come_back_are_bright_again(make_looked):
    live = np.ones((LAYERS, 1 + GRID**2), bool)
    live[2, 5] = False  # an example of a policy that lets tokens rest for a single layer
    looked = make_looked(live=live)
    drawn = [np.asarray(f) for f in layer_animation.frames(looked, grid=GRID, gmacs_dense=6.0)]
    side = drawn[0].shape[1]
    assert not np.array_equal(drawn[2][:side], drawn[1][:side])
    np.testing.assert_array_equal(drawn[3][:side], drawn[1][:side])


def test_the_gif_has_a_frame_for_each_layer_and_loops(make_looked, tmp_path):
    path = tmp_path / "layers.gif"
    layer_animation.write(make_looked(depth=np.full(17, 2)), path, grid=GRID, gmacs_dense=6.0)
    with Image.open(path) as gif:
        assert gif.n_frames == LAYERS
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == layer_animation.LAYER_MILLISECONDS
        gif.seek(LAYERS - 1)
        assert gif.info["duration"] == layer_animation.LAST_MILLISECONDS


def test_the_bar_under_a_frame_has_the_layers_colour_in_the_gif_too(make_looked, tmp_path):
    path = tmp_path / "layers.gif"
    layer_animation.write(make_looked(), path, grid=GRID, gmacs_dense=6.0)
    with Image.open(path) as gif:
        for layer, colour in enumerate(palette.colours(LAYERS)):
            gif.seek(layer)
            found = np.asarray(gif.convert("RGB"), int)[gif.width + 2, 3]
            assert np.abs(found - colour).max() <= 4, layer


def test_a_layer_that_is_left_out_is_told_from_the_end(make_looked, monkeypatch):
    live = np.zeros((LAYERS, 1 + GRID**2), bool)
    live[[0, 2]] = True
    said = []
    monkeypatch.setattr(
        layer_animation, "_caption", lambda *args, patches, **others: said.append(patches)
    )
    layer_animation.frames(make_looked(live=live), grid=GRID, gmacs_dense=6.0)
    every = "16 of 16 patches"
    assert said == [every, "left out", every, "finished", "finished"]
