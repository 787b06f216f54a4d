"""Several class tokens, registers and averaged patches: every execution gives the same answers."""

import functools

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.execution.plan import Plan
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from tests.execution.executed import counting

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
BATCH = 3
SIZES = {"image_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
METHODS = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 2.0, "gate_center": 0.5}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "dense": ("deit_micro_patch4_32", {}),
}
TOKENS = {
    "registers": {"num_registers": 3},
    "two class tokens, their mean": {"num_class_tokens": 2},
    "two class tokens, their sum": {
        "num_class_tokens": 2, "class_token_merge": "sum", "num_registers": 1, "distilled": True,
    },
    "average": {"pool": "avg", "num_registers": 1, "pos_embed_prefix": False},
    "average without class token": {"pool": "avg", "num_class_tokens": 0},
}  # fmt: skip
EXACT = ("compact", "static")
QUICK = [
    ("avit", "average", "compact"),
    ("avit", "average", "static"),
    ("avit", "two class tokens, their sum", "static"),
]
ALL = [
    (method, tokens, execution)
    for method in METHODS
    for tokens in TOKENS
    for execution in EXACT
    if (method, execution) != ("dense", "static")
    and (method, tokens) != ("adavit", "average without class token")  # which it refuses
]


def slow_but(quick, cases):
    return [pytest.param(*c, marks=[] if c in quick else pytest.mark.slow) for c in cases]


@functools.cache
def case(method, tokens, seed=2):
    """A model, its parameters, images, and what masked execution says about them."""
    name, settings = METHODS[method]
    model = avit_jax.create_model(name, method=settings, num_classes=5, **SIZES, **TOKENS[tokens])
    # Attention that looks somewhere.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, model.init(jax.random.key(seed)))
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    return model, params, images, jax.jit(model.apply)(params, images)


def assert_alike(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def plan_of(model, execution, usage, batch=BATCH):
    """Few sizes, and just as many rows as a batch needs."""
    rows = None
    if execution == "static":
        wanted = np.asarray(model.static_work(usage)).sum(-1)
        rows = tuple(int(count) for count in np.maximum(wanted, 1))
    lengths = (8, model.shape.num_tokens)
    return Plan(
        images=batch, row_sizes=(16,), attention_images=1, lengths=lengths, dense_images=batch,
        static_rows=rows,
    )  # fmt: skip


@pytest.mark.parametrize(("method", "tokens", "execution"), slow_but(QUICK, ALL))
def test_every_execution_gives_the_same_answers_and_counts_them(method, tokens, execution):
    model, params, images, masked = case(method, tokens)
    plan = plan_of(model, execution, masked.usage)
    arguments = params, images, np.ones(BATCH, bool)
    program = model.program(EXECUTIONS[execution], plan)
    run_adds, answer = counting(program, *arguments)(*arguments)
    assert_alike(answer.logits, masked.logits)
    ran = np.asarray(masked.usage[0].tokens)
    np.testing.assert_array_equal(answer.usage[0].tokens, ran)
    assert answer.fits is None or answer.fits.all()
    assert method == "dense" or 0.1 < ran.mean() < 0.9, "hardly anything is skipped or runs"
    said = executed_gmacs(EXECUTIONS[execution], model, masked.usage, plan)
    if method == "adavit":  # what decides is not counted: patches, heads and halves of each block
        shape = model.shape
        outputs = shape.grid**2 + shape.num_heads + 2
        said += BATCH * shape.depth * outputs * shape.embed_dim / costs.GIGA
    assert said * costs.GIGA == pytest.approx(run_adds)
