"""ONNX graphs, run by onnxruntime on real images, answer as the model does."""

import json

import jax
import numpy as np
import pytest

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.export import run as export
from avit_jax.export.check import check_images
from tests.contract.tiny_models import tiny

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from avit_jax.export import onnx_graph  # noqa: E402  needs onnx

RULES = {
    "gate_scale": 4.0,
    "gate_center": 0.0,
    "layer_centers": (1.0, -0.5, 0.0, 0.0),
    "learn_gates": True,
    "min_depth": 2,
    "max_depth": 3,
    "halt_from": 2,
    "class_tokens_halt": False,
}


def answers(graph, images):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return dict(
        zip(("logits", "depth", "gmacs"), session.run(None, {"images": images}), strict=True)
    )


@pytest.mark.parametrize(
    ("family", "execution", "changes"),
    [
        ("avit", "masked", {"distilled": True, "method": {"gate_scale": 4.0, "gate_center": 0.0}}),
        ("avit", "masked", {"distilled": True, "depth": 4, "method": RULES}),
        ("dense", "dense", {"qkv_bias": False, "norm": "rmsnorm", "pos_embed": "rope_2d"}),
        ("dense", "dense", {"num_class_tokens": 2, "num_registers": 2, "class_token_merge": "sum"}),
        (
            "avit",
            "masked",
            {"attention": "cosine", "method": {"gate_scale": 4.0, "gate_center": 0.0}},
        ),
        (
            "avit",
            "masked",
            {
                "pool": "avg",
                "num_registers": 1,
                "pos_embed_prefix": False,
                "method": {"gate_scale": 4.0, "gate_center": 0.0},
            },
        ),
        (
            "avit",
            "masked",
            {
                "attention": "linear",
                "qk_norm": True,
                "layer_scale": 0.5,
                "norm": "instancenorm",
                "method": {"gate_scale": 4.0, "gate_center": 0.0},
            },
        ),
    ],
)
def test_a_graph_answers_as_the_model(family, execution, changes, run):
    images = check_images(Experiment(run[0], run[1]))[0][:6]
    model = tiny(family, num_heads=2, **changes)
    # Large enough that tokens of one image halt in different layers.
    params = jax.tree.map(lambda leaf: 1.5 * np.asarray(leaf), model.init(jax.random.key(3)))
    graph = onnx_graph.build(model, params, dense=execution == "dense", description={})
    found = answers(graph.SerializeToString(), images)
    expected = jax.jit(lambda x: model.apply(params, x, execution=execution))(normalise(images))
    depth = np.asarray(expected.usage[0].tokens.sum(0))
    np.testing.assert_array_equal(found["depth"], depth)
    np.testing.assert_allclose(found["logits"], expected.logits, atol=2e-5)
    np.testing.assert_allclose(found["gmacs"], model.gmacs(expected), rtol=1e-5)
    assert (len(np.unique(depth)) > 1) == (family == "avit" and execution == "masked")


def test_neighbours_that_are_taken_along_are_refused():
    model = tiny("avit", method={"spread": "cross"})
    with pytest.raises(UserError, match=r"method\.spread is 'cross', which cannot be written"):
        onnx_graph.build(model, model.init(jax.random.key(0)), dense=False, description={})


def test_a_run_becomes_one_file_that_describes_itself(run, tmp_path, capsys):
    config, workdir, model, params = run
    file = export.export_run(config, workdir, output=tmp_path / "digits.onnx")
    assert list(tmp_path.iterdir()) == [file]
    properties = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert properties["labels"] == [str(digit) for digit in range(10)]
    assert properties["execution"] == "masked"
    images = check_images(Experiment(config, run[1]))[0]
    expected = jax.jit(model.apply)(params, normalise(images)).logits
    np.testing.assert_allclose(answers(str(file), images)["logits"], expected, atol=1e-4)
    assert "largest difference" in capsys.readouterr().out


def test_an_execution_that_onnx_lacks_is_refused(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.inference.execution = "capped"
    with pytest.raises(
        UserError, match=r"no execution 'capped': write .* dense or masked or compact"
    ):
        export.export_run(config, run[1], output=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
