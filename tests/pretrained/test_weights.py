"""Weights are found in whatever file and wrapper they come, and what is no weight file is named."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from avit_jax.errors import UserError
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from tests.parity import avit, golden
from tests.pretrained import files
from tests.pretrained.files import FIXTURES, dict_of, tensor_pickle, zip_of

FOUR = np.arange(4, dtype=np.float32).tobytes()
TENSOR = tensor_pickle()[tensor_pickle().index(b"ctorch._utils") : -2]  # what makes one


def checkpoint(path, **entries: bytes):
    """A zip file of a dict whose values are given as pickled instructions."""
    return zip_of(path, b"\x80\x02" + dict_of(**entries) + b".", s0=FOUR)


@pytest.fixture(scope="module")
def golden_run():
    """From weights to their logits and the published implementation's, for one golden file."""
    recorded = golden.load(files.GOLDEN)
    model, images = avit.model_of(recorded), recorded["in/images"].transpose(0, 2, 3, 1)
    apply = jax.jit(model.apply)
    return lambda weights: (apply(model.from_torch(weights), images).logits, recorded["out/logits"])


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("golden_zip", "weights.pth"),
        ("golden_legacy", "weights.pth.tar"),
        ("golden_safetensors", "weights.safetensors"),
    ],
)
def test_published_numbers_are_reproduced_from_files_of_torch(tmp_path, golden_run, fixture, name):
    state_dict = load_torch(files.whole(fixture, tmp_path / name))
    files.assert_same(state_dict, files.golden_weights())
    logits, wanted = golden_run(state_dict)
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=2e-5)


def test_safetensors_are_read_bit_for_bit():
    files.assert_same(load_torch(FIXTURES / "tensors.safetensors"), files.expected())


def test_torch_is_not_imported():
    program = (
        "import sys; from avit_jax.pretrained.weights import load_torch; "
        "[load_torch(path) for path in sys.argv[1:]]; "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'tensorflow')])"
    )
    paths = [str(FIXTURES / name) for name in ("checkpoint.pth", "tensors.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "module.module."]
)
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper, prefix):
    path = checkpoint(
        tmp_path / "x.pth", epoch=b"K\x03", **{wrapper: dict_of(**{f"{prefix}x": TENSOR})}
    )
    assert list(load_torch(path)) == ["x"]
    path = checkpoint(
        tmp_path / "x.pth", model=dict_of(state_dict=dict_of(**{prefix + "x": TENSOR}))
    )
    assert list(load_torch(path)) == ["x"]


def test_a_prefix_of_some_names_is_part_of_them(tmp_path):
    path = checkpoint(tmp_path / "x.pth", **{"module.x": TENSOR, "y": TENSOR})
    assert list(load_torch(path)) == ["module.x", "y"]


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_the_moving_average_is_taken_when_asked_for(name):
    wanted = {n: (a + a.dtype.type(1)) for n, a in files.expected().items() if n != "bool"}
    files.assert_same(load_torch(FIXTURES / name, weights="ema"), wanted)


@pytest.mark.parametrize(
    ("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")]
)
def test_of_weights_and_their_average_the_log_says_which_is_taken(tmp_path, caplog, raw, average):
    entries = {raw: dict_of(x=TENSOR), average: dict_of(**{"module.y": TENSOR})}
    path = checkpoint(tmp_path / "x.pth", epoch=b"K\x03", **entries)
    taken = {
        "raw": ("x", f"the weights in {raw} are taken, not their moving average in {average}"),
        "ema": (
            "y",
            f"the moving average of the weights in {average} is taken, not those in {raw}",
        ),
    }
    for weights in ("auto", "ema", "raw"):
        caplog.clear()
        with caplog.at_level("INFO", logger="avit_jax"):
            found = load_torch(path, weights=weights)
        name, said = taken["ema" if weights == "auto" else weights]
        assert (list(found), caplog.messages) == ([name], [said])


def test_a_release_of_nothing_but_the_average_is_read(tmp_path, caplog):
    """T2T-ViT's are such files."""
    path = checkpoint(tmp_path / "x.pth", state_dict_ema=dict_of(**{"module.x": TENSOR}))
    with caplog.at_level("INFO", logger="avit_jax"):
        assert list(load_torch(path)) == ["x"]
    said = "the moving average of the weights in state_dict_ema is taken, there are no others"
    assert caplog.messages == [said]
    with pytest.raises(UserError, match=r"no weights but .* average, only state_dict_ema: write"):
        load_torch(path, weights="raw")


def test_weights_without_an_average_are_taken_without_a_word(tmp_path, caplog):
    path = checkpoint(tmp_path / "x.pth", state_dict=dict_of(x=TENSOR), state_dict_ema=b"N")
    with caplog.at_level("INFO", logger="avit_jax"):
        assert [list(load_torch(path, weights=which)) for which in ("auto", "raw")] == [["x"]] * 2
    assert not caplog.messages


def test_a_mistyped_choice_of_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="got weights='EMA': write auto, ema, raw"):
        load_torch(tmp_path / "x.pth", weights="EMA")


def test_a_missing_moving_average_is_said(tmp_path):
    path = checkpoint(tmp_path / "x.pth", state_dict=dict_of(x=TENSOR), epoch=b"K\x03")
    with pytest.raises(UserError, match=r"no moving average .*, only state_dict, epoch: write"):
        load_torch(path, weights="ema")
    with pytest.raises(UserError, match=r"no moving average of the weights: write weights='auto'"):
        load_torch(FIXTURES / "tensors.safetensors", weights="ema")


def test_a_file_without_state_dict_says_what_there_is(tmp_path):
    path = checkpoint(tmp_path / "x.pth", epoch=b"K\x03", optimizer=b"]")
    with pytest.raises(UserError, match=r"holds no state dict, only epoch, optimizer: save model"):
        load_torch(path)
    path = checkpoint(tmp_path / "x.pth", **{f"key{i}": b"N" for i in range(20)})
    with pytest.raises(UserError, match=r"key11 and 8 more: save"):
        load_torch(path)
    path = checkpoint(tmp_path / "x.pth", x=TENSOR, epoch=b"K\x03")
    with pytest.raises(UserError, match=r"mixes its tensors with other things, epoch: save model"):
        load_torch(path)
    with pytest.raises(UserError, match=r"holds no tensors"):
        load_torch(checkpoint(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("value", "kind"),
    [(b"]", "list"), (b"cargparse\nNamespace\n)R", "argparse.Namespace"), (TENSOR, "tensor")],
)
def test_a_file_of_something_else_says_what_it_is(tmp_path, value, kind):
    path = zip_of(tmp_path / "x.pth", b"\x80\x02" + value + b".", s0=FOUR)
    with pytest.raises(UserError, match=rf"holds a {kind} and no state dict"):
        load_torch(path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n <html lang='en'>", "is a web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "is a web page"),
        (b"x" * 257 + b"ustar\x00" + b"x" * 300, "is a tar archive"),
        (b"\x1f\x8b\x08\x00rest", "is compressed with gzip"),
        (b"Not Found", r"is no weight file \(it begins with b'Not Foun'\)"),
        (b"PK\x03\x04rest", "is damaged or incomplete"),
        (b"\x80\x02rest", "is damaged or incomplete"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.npz"])
def test_what_is_no_weight_file_is_named_in_one_sentence(tmp_path, data, what, name):
    (tmp_path / name).write_bytes(data)
    if name == "weights.safetensors" and what.startswith(("is no weight", "is damaged")):
        what = "is damaged or incomplete"
    with pytest.raises(UserError, match=what) as refusal:
        load_torch(tmp_path / name)
    assert str(refusal.value).startswith(str(tmp_path / name))
    assert str(refusal.value).endswith(".") and ". " not in str(refusal.value)


def test_paths_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth does not exist: give the path"):
        load_torch(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors, "):
        load_torch(tmp_path)
    with pytest.raises(UserError, match=r"http://b/x\.pth is not a local file: copy it"):
        load_torch("http://b/x.pth")


def test_safetensors_of_types_that_numpy_lacks_are_refused(tmp_path):
    header = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00")
    with pytest.raises(UserError, match="has tensors of a type that NumPy cannot hold"):
        load_torch(path)
    safetensors.numpy.save_file({}, path)
    with pytest.raises(UserError, match="holds no tensors"):
        load_torch(path)


def test_the_path_may_be_a_string_and_named_anything(tmp_path):
    save_torch(tmp_path / "x.pth", {"x": np.zeros(2, np.float32)})
    (tmp_path / "x.pth").rename(tmp_path / "download")
    assert list(load_torch(str(tmp_path / "download"))) == ["x"]
