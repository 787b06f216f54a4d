"""Compiled inference refuses what it was not compiled for, in one sentence."""

import copy
import dataclasses
import pickle
import types

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

import avit_jax
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.execution.executions import EXECUTIONS, fastest


@pytest.fixture(scope="module")
def model():
    return avit_jax.create_model("deit_micro_patch4_32", num_classes=5, depth=2)


@pytest.fixture(scope="module")
def predict(model):
    return model.compile(model.init(jax.random.key(0)), batch_size=8)


def test_more_images_than_the_batch_are_refused(predict):
    with pytest.raises(ValueError, match="9 images are more than the batch_size 8"):
        predict(np.zeros((9, 32, 32, 3), np.float32))


def test_images_of_another_size_are_refused(predict):
    with pytest.raises(ValueError, match="images have shape"):
        predict(np.zeros((2, 16, 32, 3), np.float32))


def test_a_batch_that_does_not_divide_among_the_devices_is_refused(model):
    with pytest.raises(ValueError, match="write a multiple of 8"):
        model.compile(model.init(jax.random.key(0)), batch_size=12)


def test_an_unknown_execution_is_refused_with_the_known_ones(model):
    with pytest.raises(ValueError, match="dense, masked, compact, static, capped"):
        model.compile(model.init(jax.random.key(0)), batch_size=8, execution="fast")


def test_answers_come_back_for_the_images_that_were_given(predict):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 32, 32, 3)).astype(np.float32)
    whole, part = predict(images), predict(images[:3])
    np.testing.assert_allclose(part.logits, whole.logits[:3], atol=1e-6)
    assert part.usage[0].tokens.shape[1] == 3


def test_pixels_are_normalised_on_the_way_in_compiled_or_not(model, predict):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    params = model.init(jax.random.key(0))
    wanted = predict(np.asarray(normalise(pixels))).logits
    np.testing.assert_allclose(predict(pixels).logits, wanted, atol=1e-6)
    np.testing.assert_allclose(predict(list(pixels)).logits, wanted, atol=1e-6)
    np.testing.assert_allclose(jax.jit(model.apply)(params, pixels).logits, wanted, atol=1e-5)
    for answer in (predict, lambda images: model.apply(params, images)):
        with pytest.raises(UserError, match="images are int64"):
            answer(pixels.astype(np.int64))


def test_an_image_of_pillow_is_refused(predict):
    with pytest.raises(UserError, match="images are of Pillow"):
        predict(Image.new("RGB", (32, 32)))


@pytest.mark.parametrize("batch_size", ["8", 8.0, True, None])
def test_a_batch_size_that_is_no_number_of_images_is_refused(model, batch_size):
    with pytest.raises(UserError, match="write a whole number of images"):
        model.compile(model.abstract_params(), batch_size=batch_size)


def test_no_images_have_no_answers(model, predict):
    none = np.zeros((0, 32, 32, 3), np.uint8)
    assert predict(none).logits.shape == (0, 5)
    with pytest.raises(UserError, match="there is no image in the batch"):
        model.apply(model.abstract_params(), none)


def test_a_predictor_says_where_it_cannot_go(predict):
    for pickled in (pickle.dumps, copy.deepcopy):
        with pytest.raises(UserError, match="pickle the model and its params"):
            pickled(predict)
    with pytest.raises(UserError, match=r"call model.apply\(params, images\) there"):
        jax.jit(lambda images: predict(images).logits)(np.zeros((8, 32, 32, 3), np.float32))


@pytest.mark.parametrize("execution", ["compact", "capped", "dense"])
def test_programs_for_accelerators_lower_for_them(execution):
    model = avit_jax.create_model("avit_micro_patch4_32", depth=2, dtype="bfloat16")
    plan = model.default_plan(8, platform="gpu")
    plan = dataclasses.replace(plan, capacities=(40, 20))
    program = model.program(EXECUTIONS[execution], plan)
    arguments = (
        model.abstract_params(),
        jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32),
        jax.ShapeDtypeStruct((8,), bool),
    )
    # Lowering raises for an operation that a platform does not know.
    exported = export.export(jax.jit(program), platforms=("cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cuda", "tpu")
    assert len(exported.out_avals) > 0


@pytest.mark.parametrize("execution", ["compact", "dense", "masked"])
def test_programs_with_fused_attention_hold_cudnns_kernel(monkeypatch, execution):
    # The version is asked for while tracing, and there is no cuDNN here.
    kernels = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{kernels}.check_cudnn_version", lambda: 91900)
    model = avit_jax.create_model("avit_micro_patch4_32", depth=2, num_heads=3, dtype="bfloat16")
    plan = model.default_plan(8, platform="gpu")
    assert plan.fused_attention
    program = model.program(EXECUTIONS[execution], plan)
    traced = jax.jit(program).trace(
        model.abstract_params(),
        jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32),
        jax.ShapeDtypeStruct((8,), bool),
    )
    assert "__cudnn$fmha" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_fused_attention_is_refused_where_there_is_no_kernel(model):
    params = model.init(jax.random.key(0))
    plan = dataclasses.replace(model.default_plan(1), fused_attention=True)
    low = avit_jax.create_model("avit_micro_patch4_32", num_heads=3, dtype="bfloat16")
    with pytest.raises(ValueError, match="none for float32 and 12 channels per head"):
        model.program(EXECUTIONS["dense"], plan)
    with pytest.raises(ValueError, match="cuDNN has none for cpu"):
        low.compile(params, batch_size=8, plan=plan)


def test_a_gpu_with_the_kernel_takes_it(monkeypatch, model):
    low = avit_jax.create_model("avit_micro_patch4_32", num_heads=3, dtype="bfloat16")
    assert low.default_plan(8, platform="gpu").fused_attention  # for one that is not here
    assert low.on("gpu").shape.fused_attention and low.on("gpu").shape.unrolled
    assert low.on("cpu") == low
    for runtime, capability, takes in (
        ("PJRT C API cuda 12.9", "9.0", True),
        ("PJRT C API cuda 12.9", "7.5", False),
        ("rocm 6.4", "gfx942", False),
    ):
        client = types.SimpleNamespace(platform_version=runtime)
        device = types.SimpleNamespace(platform="gpu", client=client, compute_capability=capability)
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert low.default_plan(8, platform="gpu").fused_attention == takes
        assert not low.default_plan(8, platform="cpu").fused_attention
        assert not model.default_plan(8, platform="gpu").fused_attention


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_accelerators_run_live_rows_without_waiting_for_the_host(dtype):
    adaptive = avit_jax.create_model("avit_micro_patch4_32", dtype=dtype)
    dense = avit_jax.create_model("deit_micro_patch4_32", dtype=dtype)
    chosen = avit_jax.create_model("adavit_deit_micro_patch4_32", dtype=dtype)
    assert fastest(adaptive, "gpu").name == fastest(adaptive, "tpu").name == "static"
    assert fastest(chosen, "gpu").name == "static"
    assert fastest(chosen, "tpu").name == fastest(dense, "gpu").name == "masked"
    assert fastest(adaptive, "cpu").name == fastest(dense, "cpu").name == "compact"
