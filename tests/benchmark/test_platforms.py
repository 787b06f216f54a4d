"""What a race does on which machine: sizes, peers, published peaks, and memory that is full."""

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.benchmark import onnx_peers, peers, profiles, scale
from avit_jax.benchmark.contenders import dense_groups, peer_names, require_peer
from avit_jax.benchmark.peaks import published_peak
from avit_jax.benchmark.room import Room
from avit_jax.config.inference import ONNX_PEERS, PEER_MODES, Benchmark
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError


@pytest.mark.parametrize(
    ("device_kind", "teraflops"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L4", 121),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_published_peaks_are_found_by_what_jax_calls_a_device(device_kind, teraflops):
    assert published_peak(device_kind, "bfloat16") == teraflops * 1e12
    assert published_peak(device_kind, "float32") is None


@pytest.mark.parametrize("device_kind", ["cpu", "NVIDIA L40S", "NVIDIA A10", "TPU v3", "TPU v4i"])
def test_chips_that_the_table_lacks_have_no_peak(device_kind):
    assert published_peak(device_kind, "bfloat16") is None


def test_batches_fill_an_accelerator_and_what_is_asked_for_stays():
    cpu, gpu = (scale.completed(Benchmark(), platform) for platform in ("cpu", "gpu"))
    assert cpu.batch_sizes == (1, 16, 32, 64) and cpu.calls == 1
    assert gpu.batch_sizes == (128, 256, 512, 1024) and gpu.calls > 1
    assert "compact" in cpu.executions and "compact" not in gpu.executions
    asked = Benchmark(batch_sizes=(8,), calls=3, executions=("dense", "compact"))
    assert scale.completed(asked, "gpu") == asked


def test_dense_candidates_are_groups_on_a_cpu_and_everything_at_once_elsewhere():
    plan = avit_jax.create_model("avit_micro_patch4_32").default_plan(64, platform="cpu")
    assert dense_groups(plan, 1, "cpu") == (1,)
    assert {2, 4, 8} < set(dense_groups(plan, 64, "cpu"))
    assert dense_groups(plan, 64, "gpu") == (64,)


def test_peers_are_named_alike_in_configs_and_code():
    assert tuple(peers.MODES) == PEER_MODES
    assert tuple(onnx_peers.PEERS) == ONNX_PEERS
    assert list(peer_names(("eager", "openvino"))) == ["torch eager", "openvino"]


def test_an_unknown_peer_is_refused():
    with pytest.raises(ValueError, match="write some of eager, compile"):
        peers.peer("onnx", None, None, platform="cpu")


@pytest.mark.parametrize(
    ("kind", "platform", "installed", "message"),
    [
        ("eager", "cpu", False, "install the extra `benchmark`"),
        ("timm_eager", "cpu", False, "PyTorch or timm is missing"),
        ("graphs", "cpu", True, "CUDA graphs, which a CPU does not have"),
        ("eager", "tpu", True, "JAX runs on a tpu, and PyTorch does not reach one"),
        ("eager", "gpu", True, "among 8 GPUs, and PyTorch's peers run on one"),
    ],
)
def test_a_peer_that_would_not_meet_jax_on_the_same_hardware_is_refused(
    kind, platform, installed, message, monkeypatch
):
    monkeypatch.setattr(peers, "available", lambda kind: installed)
    with pytest.raises(ValueError, match=message):
        peers.device_for(kind, platform)


def test_a_library_that_cannot_be_imported_is_no_peer(monkeypatch):
    monkeypatch.setattr(peers, "available", lambda kind: True)
    monkeypatch.setattr(peers, "MODULES", {"transformers": "json", "timm": "no_such_module"})
    assert peers.usable("cpu") == ("eager", "compile", "autotune")
    assert peers.usable("tpu") == ()


@pytest.mark.parametrize("kind", ["eager", "timm_eager"])
def test_a_peer_answers_where_it_is_installed(kind):
    if not peers.available(kind):
        pytest.skip(f"PyTorch or {peers.library_of(kind)} is not installed")
    shape = avit_jax.create_model("deit_micro_patch4_32").shape
    images = np.zeros((2, 32, 32, 3), np.float32)
    peers.peer(kind, shape, images, platform="cpu", calls=2)()


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (
            "eager",
            {"attention": "cosine"},
            "attention of the model is 'cosine', which trans",
        ),
        ("timm_eager", {"attention": "linear"}, "attention of the model is 'linear', which timm"),
        ("eager", {"layer_scale": 0.1}, "layer_scale of the model is 0.1, which transformers"),
    ],
)
def test_a_peer_without_such_a_network_is_refused(kind, changes, said, monkeypatch):
    monkeypatch.setattr(peers, "device_for", lambda kind, platform: "cpu")
    shape = avit_jax.create_model("deit_micro_patch4_32", **changes).shape
    with pytest.raises(UserError, match=said):
        peers.peer(kind, shape, np.zeros((1, 32, 32, 3), np.float32), platform="cpu")


@pytest.mark.parametrize("kind", onnx_peers.PEERS)
def test_runtimes_of_graphs_are_asked_for_by_their_extra_and_run_on_cpus_alone(kind, monkeypatch):
    monkeypatch.setattr(onnx_peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx and \w+: pip install -e '.\[benchmark-onnx"):
        require_peer(kind, "cpu")
    monkeypatch.setattr(onnx_peers.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="runs on a CPU and JAX on a gpu"):
        require_peer(kind, "gpu")


@pytest.mark.parametrize("kind", onnx_peers.PEERS)
def test_a_runtime_of_graphs_answers_where_it_is_installed(kind):
    pytest.importorskip("onnx")
    pytest.importorskip(onnx_peers.PEERS[kind][0])
    shape = avit_jax.create_model("avit_micro_patch4_32").shape
    try:
        run = onnx_peers.peer(kind, shape, np.zeros((2, 32, 32, 3), np.float32), calls=2)
    except avit_jax.UserError as error:
        assert kind == "openvino-bf16" and "no arithmetic in bfloat16" in str(error)
    else:
        first, second = run()
        assert first.shape == (2, shape.num_classes) and np.isfinite(first).all()
        assert np.array_equal(first, second)


class OutOfMemoryError(RuntimeError):
    """As PyTorch names it."""


@pytest.mark.parametrize(
    "error",
    [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), OutOfMemoryError("CUDA")],
)
def test_what_finds_no_memory_is_left_out_and_named(error, capsys):
    def full():
        raise error

    room = Room()
    assert room.attempt("static", full) is None
    assert room.attempt("dense", lambda: 1) == 1
    assert room.left_out == ["static"]
    assert "static left out: out of memory" in capsys.readouterr().out


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: no"), ValueError("no")])
def test_other_errors_are_not_taken_for_full_memory(error):
    def wrong():
        raise error

    with pytest.raises(type(error), match="no"):
        Room().attempt("static", wrong)


def test_tokens_halt_alike_from_pixels_as_training_reads_them():
    model = avit_jax.create_model(
        "avit_micro_patch4_32", method={"gate_scale": 10.0, "gate_center": 75.0}
    )
    params, images = profiles.script(model, "half", 8)
    assert np.abs(images).max() > 3  # brighter than pixels can be
    darker, pixels = profiles.as_pixels(model, params, images)
    assert pixels.dtype == np.uint8
    wanted = np.asarray(model.apply(params, images).usage[0].tokens)
    found = np.asarray(model.apply(darker, normalise(pixels)).usage[0].tokens)
    assert (wanted == found).mean() > 0.98
    assert 0.2 < wanted.mean() < 0.8
