"""A trained model in Python: weights, preprocessing, names of classes, and answers for images."""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import threading
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from PIL import Image

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import finest_stage, num_layers
from avit_jax.models.functional import Params
from avit_jax.prediction.answer_lines import make_lines
from avit_jax.prediction.answers import NUMBERS, Answerer, local_batch_size
from avit_jax.prediction.inputs import GivenImages, ImageLike
from avit_jax.prediction.preprocessing import prepare, prepare_all
from avit_jax.viz import depth_maps
from avit_jax.viz.matplotlib_figure import png_bytes
from avit_jax.viz.patches import on_grid

logger = logging.getLogger(__name__)
DRAWN_AT_MOST = 100  # images in one picture
# Threads that ask one run at once wait for one program. No part of a run, which can be pickled.
_BUILDING = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes:
        image: the path as it was given, or "image 2" of what was no path.
        label: name of the class with the highest probability; `None` with an `error`.
        class_index: its number, from 0; `None` with an `error`.
        probability: of that class, 0..1; NaN with an `error`.
        depth: mean over the tokens of the layers that ran; NaN with an `error`.
        depth_map: layers that ran for each patch, int `[grid, grid]`; zeros with an `error`.
        gmacs: multiply-adds that the image needed, in 1e9; NaN with an `error`.
        dropped: tokens that found no place, of execution "capped".
        exit: the stage that answered, from 0, of models that have several.
        error: why there is no answer, or `None`.
    """

    image: str
    label: str | None
    class_index: int | None
    probability: float
    depth: float
    depth_map: np.ndarray = dataclasses.field(repr=False)
    gmacs: float
    dropped: int | None = None
    exit: int | None = None
    error: str | None = None


class LoadedRun:
    """What `avit_jax.load_run` returns.

    Attributes:
        source: the workdir, exported folder or weight file, as it was given.
        origin: of the weights, for people: "step 3800 of runs/avit_digits (ema)".
        model: as `create_model` makes them; an operating point is in force in it.
        params: its parameters, for `model.apply` and `model.compile`.
        class_names: in the order of the logits; "class 3" where nobody has kept them.
        execution: how `predict` computes, by name.
    """

    def __init__(
        self,
        source: str,
        experiment: Experiment,
        params: Params,
        *,
        origin: str,
        class_names: tuple[str, ...],
    ):
        self.source, self.origin, self.class_names = source, origin, class_names
        self.model: Model = experiment.model
        self.params = params
        self.execution = experiment.execution
        self._plan, self._settings, self._name = (
            experiment.plan,
            experiment.settings,
            experiment.name,
        )
        self._answerers: dict[int, Answerer] = {}

    def __repr__(self) -> str:
        size = self.model.shape.image_size
        return (
            f"<LoadedRun {self._name}, {self.origin}: {len(self.class_names)} classes, "
            f"{size} x {size} pixels, {self.execution} execution>"
        )

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Prediction]:
        """Answers, in the order of the images, as `--mode predict` gives them.

        A file that turns out to be unreadable, or an image that the model has no finite answer for,
        gets a `Prediction` with `error` and no label, and a warning; the others are answered.

        Args:
            images: paths of images or folders (walked to the bottom), bytes of a file or one that
                is open, images of Pillow, arrays of uint8 `[H, W, 3]`, `[H, W]`, `[H, W, 1 | 4]` or
                `[B, H, W, C]`; one, or several.

        Raises:
            UserError: a path that is not there, an array that is no image, or another type; before
                anything is computed.
        """
        return self._predict(GivenImages(images, class_names=self.class_names))

    def draw(self, images: ImageLike | Iterable[ImageLike]) -> Image.Image:
        """Images beside the number of layers that each of their patches went through.

        A notebook shows the picture by itself; `.save("depth_maps.png")` keeps it.

        Args:
            images: as `predict` takes them, at most 100.

        Returns:
            One picture with a legend. Above an image stand its label and the label's probability.

        Raises:
            UserError: an image that cannot be used, none, or more than that.
        """
        source = GivenImages(images, class_names=self.class_names)
        if not 1 <= len(source) <= DRAWN_AT_MOST:
            raise UserError(
                f"there are {len(source)} images to draw: write 1 to {DRAWN_AT_MOST} of them."
            )
        size, augment = self.model.stages[0].image_size, self._settings.data.augment
        cut = prepare_all(source, size=size, augment=augment)
        answers = self._predict(source)
        bad = next((one for one in answers if one.error is not None), None)
        if bad is not None:
            raise UserError(f"{bad.image} {bad.error}: leave it out.")
        figure = depth_maps.figure_of(
            cut,
            np.stack([answer.depth_map for answer in answers]),
            [f"{answer.label} ({answer.probability:.0%})" for answer in answers],
            depth=num_layers(self.model),
        )
        png = png_bytes(figure, dots_per_inch=depth_maps.DOTS_PER_INCH)
        return Image.open(io.BytesIO(png))

    def _predict(self, source: GivenImages) -> list[Prediction]:
        found: list[Prediction] = []
        if not len(source):
            return found
        for loaded, values in self._answerer(len(source)).answers(source, range(len(source))):
            numbers = {name: values[name] for name in NUMBERS if name in values}
            maps = on_grid(values["token_depth"], finest_stage(self.model).grid)
            lines = make_lines(source, loaded, numbers)
            found += [_prediction(line, maps[row]) for row, line in enumerate(lines)]
        for bad in (answer for answer in found if answer.error is not None):
            logger.warning("%s %s", bad.image, bad.error)
        return found

    def preprocess(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Images as `model.apply(params, ...)` takes them: cut as in evaluation, and normalised.

        Returns:
            float32 `[S, S, 3]` of one image, `[B, S, S, 3]` of several.

        Raises:
            UserError: an image that cannot be used.
        """
        size, augment = self.model.stages[0].image_size, self._settings.data.augment
        return np.asarray(normalise(jnp.asarray(prepare(images, size=size, augment=augment))))

    def _answerer(self, images: int) -> Answerer:
        """One image alone has a program of its own; several are filled up to a whole batch."""
        wanted = 1 if images == 1 else self._settings.inference.batch_size
        size = local_batch_size(wanted, wanted)
        with _BUILDING:
            if size not in self._answerers:
                self._answerers[size] = Answerer(
                    self.model,
                    self.params,
                    batch_size=size,
                    execution=self.execution,
                    plan=self._plan,
                    augment=self._settings.data.augment,
                    names=(*NUMBERS, "token_depth"),
                )
            return self._answerers[size]


def _prediction(line: dict, depth_map: np.ndarray) -> Prediction:
    if "error" in line:
        return Prediction(
            image=line["image"],
            label=None,
            class_index=None,
            probability=math.nan,
            depth=math.nan,
            depth_map=np.zeros_like(depth_map),
            gmacs=math.nan,
            error=line["error"],
        )
    return Prediction(
        image=line["image"],
        label=line["label"],
        class_index=line["class_index"],
        probability=line["confidence"],
        depth=line["depth"],
        depth_map=depth_map,
        gmacs=line["gmacs"],
        dropped=line.get("dropped"),
        exit=line.get("exit"),
    )
