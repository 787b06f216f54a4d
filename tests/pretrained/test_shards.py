"""Weights in shards are read whole, by their index or folder, and one shard says what it is."""

import json

import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.pretrained.shards import is_weight_folder
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch

WHOLE = {f"deit.encoder.layer.{n}.output.dense.bias": np.full(2, n, np.float32) for n in range(4)}
WHOLE["classifier.bias"] = np.ones(3, np.float32)


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def folder(tmp_path, request):
    stem, _, ending = request.param.rpartition(".")
    parts, names = {}, list(WHOLE)
    for number, chosen in enumerate((names[:3], names[3:4], names[4:]), start=1):
        shard = f"{stem}-{number:05}-of-00003.{ending}"
        save_torch(tmp_path / shard, {name: WHOLE[name] for name in chosen})
        parts |= dict.fromkeys(chosen, shard)
    (tmp_path / f"{request.param}.index.json").write_text(json.dumps({"weight_map": parts}))
    return tmp_path


def index_of(folder):
    return next(folder.glob("*.index.json"))


def test_an_index_and_its_folder_are_the_whole(folder):
    assert is_weight_folder(folder) and not is_weight_folder(folder.parent)
    for path in (index_of(folder), folder):
        found = load_torch(path)
        assert {f"deit.{n}" if "layer" in n else n for n in found} == set(WHOLE)
        assert all(
            a.tobytes() == WHOLE[f"deit.{n}"].tobytes()
            for n, a in found.items()
            if "." in n and "layer" in n
        )


def test_one_shard_says_which_it_is(folder):
    shard = sorted(folder.glob("*-of-*"))[1]
    with pytest.raises(UserError, match=r"is shard 2 of 3: give \S+\.index\.json or the folder"):
        load_torch(shard)


def test_what_is_missing_or_damaged_is_named(folder):
    shard, index = sorted(folder.glob("*-of-*"))[0], index_of(folder)
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(UserError, match="is damaged or incomplete"):
        load_torch(index)
    shard.unlink()
    with pytest.raises(UserError, match=rf"lists {shard.name}, which is not beside it: download"):
        load_torch(folder)
    for text in ("{}", "[]", "no JSON", '{"weight_map": 3}', '{"weight_map": {"x": "../x"}}'):
        index.write_text(text)
        with pytest.raises(UserError, match=r"has no weight_map|names \.\./x, which is damaged"):
            load_torch(index)


def test_a_folder_with_one_file_is_that_file(tmp_path):
    save_torch(tmp_path / "model.safetensors", WHOLE)
    assert len(load_torch(tmp_path)) == len(WHOLE)
