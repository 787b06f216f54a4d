"""The sections of a config that are about a finished model: `eval`, `inference`, `benchmark`."""

from __future__ import annotations

import dataclasses

from avit_jax import validators
from avit_jax.config.settings import changeable
from avit_jax.errors import UserError
from avit_jax.execution.executions import EXECUTIONS, current_name

MOST_IMAGES = 2**17  # of one batch, over all devices: what the largest published trainings need
# How a peer's network runs, see benchmark/peers.py.
PEER_MODES = ("eager", "compile", "graphs", "autotune")
# How a graph of the dense model runs, see benchmark/onnx_peers.py.
ONNX_PEERS = ("onnxruntime", "openvino", "openvino-bf16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """When and with which weights a model is evaluated."""

    batch_size: int = changeable(256)  # images that are evaluated together
    # Epochs; also saves a checkpoint. The last step always does both.
    every: float = changeable(5.0)
    weights: str = "auto"  # "auto": the EMA where there is one; "ema"; "raw". Of files, too

    def __post_init__(self):
        validators.positive(self, "batch_size", "every", prefix="config.eval.")
        validators.between(1, MOST_IMAGES, self, "batch_size", prefix="config.eval.")
        validators.one_of(("auto", "ema", "raw"), self, "weights", prefix="config.eval.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """How a finished model runs."""

    batch_size: int = 32  # images that --mode predict and benchmark put through together
    # "auto": the fastest exact one that --mode calibrate found, else compact on CPUs, static on
    # GPUs and (A-ViT, DVT) TPUs; or "compact", "static", "masked", "dense", "capped".
    execution: str = "auto"
    # Sizes of the program, which no answer depends on; where unset, those of --mode calibrate, or
    # sensible ones. Images that compact execution packs together:
    images: int | None = None
    row_sizes: tuple[int, ...] | None = None  # token rows that linear layers are compiled for
    attention_images: int | None = None  # images whose attention is computed together
    lengths: tuple[int, ...] | None = None  # tokens of an image that attention is compiled for
    dense_images: int | None = None  # images that dense execution treats together
    fused_attention: bool | None = None  # cuDNN's kernel, on NVIDIA GPUs: bfloat16
    ragged_attention: bool | None = None  # dense and static execution by our kernel, on TPUs
    unrolled: bool | None = None  # layers one by one instead of a loop: for GPUs
    packed_exits: bool | None = None  # in compact cascades tokens leave within exits, too
    capacities: tuple[int, ...] | None = None  # places in each layer, for execution "capped"
    # Rows in each layer, for execution "static"; of a cascade images in each exit but the first.
    static_rows: tuple[int, ...] | None = None

    def __post_init__(self):
        prefix = "config.inference."
        validators.positive(self, "batch_size", prefix=prefix)
        validators.between(1, MOST_IMAGES, self, "batch_size", prefix=prefix)
        compiled = ("images", "row_sizes", "attention_images", "lengths", "dense_images")
        validators.sizes(self, *compiled, "capacities", "static_rows", prefix=prefix)
        if current_name(self.execution) not in ("auto", *EXECUTIONS):
            raise UserError(
                f"config.inference.execution is {self.execution!r}: write one of auto, "
                f"{', '.join(EXECUTIONS)}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What `--mode benchmark` races."""

    # Unset: from 1 to 64 on CPUs, from 128 to 1,024 on accelerators, see benchmark/scale.py.
    batch_sizes: tuple[int, ...] | None = None
    image_sizes: tuple[int, ...] | None = None  # the model's own where unset
    dtypes: tuple[str, ...] | None = None  # the model's own where unset
    # Synthetic: paper, half, none; real: this run's own. Unset: paper and half where the model has
    # them, else real.
    profiles: tuple[str, ...] | None = None
    executions: tuple[str, ...] | None = None  # unset: all; on accelerators all but compact
    training: bool = False  # also race training steps
    turns: int = 9  # how often everything is timed, one after the other
    # Calls that are begun in a row and waited for once. Unset: 1 on CPUs, 10 on accelerators, whose
    # own time is asked for and not the host's.
    calls: int | None = None
    # Of PyTorch, where it is installed: eager, compile, graphs (CUDA graphs) and autotune are
    # transformers' network, timm_eager and so on timm's. On CPUs also onnxruntime, openvino and
    # openvino-bf16, which run the dense model as an ONNX graph.
    peers: tuple[str, ...] | None = None

    def __post_init__(self):
        known = {
            "profiles": ("paper", "half", "none", "real"),
            "executions": tuple(EXECUTIONS),
            "peers": (*(a + b for a in ("", "timm_") for b in PEER_MODES), *ONNX_PEERS),
        }
        for name, values in known.items():
            given = tuple(map(current_name, getattr(self, name) or ()))
            unknown = [value for value in given if value not in values]
            if unknown or (name == "executions" and getattr(self, name) == ()):
                raise UserError(
                    f"config.benchmark.{name} is {given}: write some of {', '.join(values)}, such "
                    f'as "({values[0]!r},)".'
                )
        if self.executions is not None and "dense" not in self.executions:
            raise UserError(
                "config.benchmark.executions has no dense, which is the baseline: add 'dense'."
            )
        sizes = self.batch_sizes
        if self.turns < 1 or (sizes is not None and (not sizes or min(sizes) < 1)):
            raise UserError(
                f"config.benchmark has turns {self.turns} and batch_sizes {sizes}: "
                "write at least one turn and one batch of one image."
            )
        validators.at_least(1, self, "calls", prefix="config.benchmark.", optional=True)
