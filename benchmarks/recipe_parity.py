"""DeiT's augmentation against timm's own code: operations, erased rectangles, mixed boxes.

    pip install timm                       # or any checkout of it: --timm DIR
    python benchmarks/recipe_parity.py --draws 20000

Nothing of timm is needed to run the package. Three parts, each on the same footing for both:

  operations  the same images through each RandAugment operation at many strengths, both ways and
              with both interpolations: how many differ from timm's result, and by how much at most
              (of 255); what timm's call of Pillow refuses; milliseconds an image, here
  erasing     height, width and place of the erased rectangle over many draws
  mixing      the kind, lambda after correction, and height, width and place of cutmix's boxes

Of two distributions the table has both means and the Kolmogorov-Smirnov distance; below the given
limit two samples of one distribution lie with a probability of 99.9 %.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import random
import statistics
import time
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from avit_jax.data.erase import Erase, rectangle
from avit_jax.data.mix import Mix, mix
from avit_jax.data.randaugment import FILL, argument, operate, parse

SIZE = 64
STRENGTHS = (0.0, 1.0, 2.5, 5.0, 7.3, 8.4, 9.0, 9.6, 10.0)
RESAMPLES = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def module_of_timm(folder: Path, name: str) -> ModuleType:
    """A file of `timm/data` without the rest of the package, which needs torchvision."""
    spec = importlib.util.spec_from_file_location(f"timm_{name}", folder / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(count: int, size: int) -> list[Image.Image]:
    """Smooth pictures with noise on them, so that operations change all kinds of pixels."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        corners = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(corners.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        noise = rng.integers(-30, 31, smooth.shape)
        found.append(Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)))
    return found


def compare_operations(timm: ModuleType, images: list[Image.Image]) -> None:
    """Prints one line an operation."""
    print(f"{'operation':22}{'cases':>7}{'differ':>8}{'largest':>9}{'refused':>9}{'ms':>9}")
    names = dict.fromkeys(parse("rand-inc1").operations + parse("rand").operations)
    for name in names:
        differences, refused, seconds = [], 0, []
        for strength, negated, resample in itertools.product(STRENGTHS, (False, True), RESAMPLES):
            value = argument(name, strength, negated=negated)
            assert value == timm_argument(timm, name, strength, negated), (name, strength, negated)
            for image in images:
                start = time.perf_counter()
                found = operate(image, name, value, resample=resample)
                seconds.append(time.perf_counter() - start)
                expected = timm_result(timm, image, name, value, resample)
                if expected is None:
                    refused += 1
                    continue
                pair = (np.asarray(one).astype(int) for one in (found, expected))
                differences.append(int(np.abs(np.subtract(*pair)).max()))
        counts = f"{len(differences):7}{np.count_nonzero(differences):8}{max(differences):9}"
        print(f"{name:22}{counts}{refused:9}{1000 * statistics.median(seconds):9.3f}")


def timm_argument(timm: ModuleType, name: str, strength: float, negated: bool) -> float | None:
    """What timm's operation gets at a strength; the direction is the same."""
    level = timm.LEVEL_TO_ARG[name]
    if level is None:
        return None
    drawn, random.random = random.random, lambda: 1.0 if negated else 0.0
    try:
        return level(strength, {})[0]
    finally:
        random.random = drawn


def timm_result(
    timm: ModuleType, image: Image.Image, name: str, value: float | None, resample: int
) -> Image.Image | None:
    """What timm makes of the image; `None` where its call of Pillow is refused."""
    arguments = () if value is None else (value,)
    try:
        return timm.NAME_TO_OP[name](image, *arguments, resample=resample, fillcolor=FILL)
    except ValueError:  # Pillow refuses to keep no bit
        return None


def compare_erasing(timm: ModuleType, draws: int) -> None:
    """Prints how rectangles are distributed."""
    settings = Erase(probability=0.25)
    keys = jax.random.split(jax.random.key(0), draws)
    masks = np.asarray(jax.vmap(lambda key: rectangle(SIZE, SIZE, settings, key))(keys))
    import torch

    erasing = timm.RandomErasing(probability=0.25, mode="const", device="cpu")
    blank = torch.ones(draws, 1, SIZE, SIZE)
    print("\nerasing, of 64 x 64 pixels")
    print_distributions(boxes(masks), boxes(erasing(blank)[:, 0].numpy() == 0), draws)


def compare_mixing(timm: ModuleType, draws: int) -> None:
    """Prints how lambdas and boxes are distributed."""
    settings = Mix(mixup=0.8, cutmix=1.0, per="batch", group=2)
    pair = jnp.stack([jnp.ones((SIZE, SIZE, 1)), jnp.zeros((SIZE, SIZE, 1))])
    images, targets = jnp.tile(pair, (draws, 1, 1, 1)), jnp.tile(jnp.eye(2), (draws, 1))
    mixed = jax.jit(lambda *rows: mix(*rows, settings, jax.random.key(0)))
    images, targets = mixed(images, targets)
    ours = mixed_by(np.asarray(images)[::2, ..., 0], np.asarray(targets)[::2, 0])
    import torch

    np.random.seed(0)  # noqa: NPY002 (timm draws from there)
    mixer = timm.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=2)
    found, shares = [], []
    for _ in range(draws):
        both = torch.stack([torch.ones(1, SIZE, SIZE), torch.zeros(1, SIZE, SIZE)])
        mixed, target = mixer(both, torch.tensor([0, 1]))
        found.append(mixed[0, 0].numpy())
        shares.append(float(target[0, 0]))
    print("\nmixup 0.8 and cutmix 1.0 per batch, of 64 x 64 pixels")
    print_distributions(ours, mixed_by(np.stack(found), np.array(shares)), draws)


def mixed_by(weights: np.ndarray, shares: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of own weights `[n, H, W]` and shares of the own label `[n]`."""
    box = ((weights == 0) | (weights == 1)).all((1, 2))
    figures = {"is cutmix": box.astype(float), "mixup lambda": shares[~box]}
    figures["cutmix lambda"] = shares[box]
    wrong = np.abs(weights.mean((1, 2)) - shares).max()
    assert wrong < 1e-3, f"a label's share is not that of the pixels: {wrong}"
    return figures | boxes(weights[box] == 0)


def boxes(masks: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of rectangles `[n, H, W]`."""
    there = masks.any((1, 2))
    rows, columns = masks[there].any(2), masks[there].any(1)
    return {
        "there": there.astype(float),
        "height": rows.sum(1),
        "width": columns.sum(1),
        "top": rows.argmax(1),
        "left": columns.argmax(1),
    }


def print_distributions(ours: dict, theirs: dict, draws: int) -> None:
    """Prints means and distances."""
    print(f"{'':16}{'draws':>9}{'our mean':>11}{'timm mean':>11}{'distance':>10}{'limit':>9}")
    for name, mine in ours.items():
        other = theirs[name]
        limit = 1.95 * math.sqrt(1 / len(mine) + 1 / len(other))
        grid = np.sort(np.concatenate([mine, other]))
        ranks = [np.searchsorted(np.sort(one), grid, "right") / len(one) for one in (mine, other)]
        distance = np.abs(ranks[0] - ranks[1]).max()
        means = f"{mine.mean():11.4f}{other.mean():11.4f}"
        print(f"{name:16}{draws:9}{means}{distance:10.4f}{limit:9.4f}")


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--timm", type=Path, help="its package's folder; the installed one if unset"
    )
    parser.add_argument("--draws", type=int, default=20000)
    parser.add_argument("--images", type=int, default=8, help="for the operations")
    parser.add_argument("--size", type=int, default=224, help="of those, in pixels")
    chosen = parser.parse_args()
    folder = chosen.timm or Path(importlib.util.find_spec("timm").submodule_search_locations[0])
    images = pictures(chosen.images, chosen.size)
    compare_operations(module_of_timm(folder, "auto_augment"), images)
    compare_erasing(module_of_timm(folder, "random_erasing"), chosen.draws)
    compare_mixing(module_of_timm(folder, "mixup"), chosen.draws)


if __name__ == "__main__":
    main()
