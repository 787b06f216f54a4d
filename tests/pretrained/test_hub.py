"""Weights from the Hugging Face Hub, with a stand-in for its package: tests use no network."""

import json
import sys

import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from tests.hub import LocalEntryNotFoundError, RepositoryNotFoundError, stand_in

NAME = "hf://owner/name"


@pytest.fixture
def hub(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def weights(tmp_path):
    for ending in (".safetensors", ".bin"):
        save_torch(tmp_path / f"w{ending}", {f"from{ending}": np.zeros(2, np.float32)})
    return tmp_path


def test_safetensors_come_first(hub, weights):
    hub.there = {
        "model.safetensors": weights / "w.safetensors",
        "pytorch_model.bin": weights / "w.bin",
    }
    assert list(load_torch(NAME)) == ["from.safetensors"]
    assert hub.asked == [("owner/name", "model.safetensors")]


def test_the_old_file_is_the_second_choice(hub, weights):
    hub.there = {"pytorch_model.bin": weights / "w.bin"}
    assert list(load_torch(NAME)) == ["from.bin"]
    assert [file for _, file in hub.asked] == ["model.safetensors", "pytorch_model.bin"]


def test_one_file_of_several_can_be_named(hub, weights):
    hub.there = {"deep/other.bin": weights / "w.bin"}
    assert list(load_torch(f"{NAME}/deep/other.bin")) == ["from.bin"]
    assert hub.asked == [("owner/name", "deep/other.bin")]
    with pytest.raises(UserError, match=r"has no file none\.bin: name one that it has"):
        load_torch(f"{NAME}/none.bin")


def test_shards_are_downloaded_with_their_index(hub, tmp_path):
    shards = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for name in shards:
        save_torch(tmp_path / name, {name: np.zeros(2, np.float32)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: name for name in shards}}))
    hub.there = {path.name: path for path in tmp_path.iterdir()}
    assert list(load_torch(NAME)) == shards
    assert [file for _, file in hub.asked][2:] == [index.name, *shards]
    del hub.there[shards[1]]
    with pytest.raises(UserError, match=rf"lists {shards[1]}, which it does not have"):
        load_torch(NAME)


def test_a_repository_without_weights_is_said(hub):
    with pytest.raises(
        UserError, match=r"no file model\.safetensors, .*pytorch_model\.bin\.index\.json: n"
    ):
        load_torch(NAME)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError(), ConnectionError("no route")])
def test_a_failing_network_is_one_sentence(hub, error):
    hub.there = {"model.safetensors": error}
    with pytest.raises(UserError, match=r"could not be downloaded \(\w+Error\): check the network"):
        load_torch(NAME)
    assert len(hub.asked) == 1


def test_an_unknown_repository_is_said(hub):
    hub.there = {"model.safetensors": RepositoryNotFoundError()}
    with pytest.raises(UserError, match=r"hf://owner/name was not found: correct the name, or log"):
        load_torch(NAME)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install avit_jax\[hub\]"):
        load_torch(NAME)


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://owner/", "hf:///name"])
def test_an_address_without_repository_is_refused(address):
    with pytest.raises(UserError, match="names no repository: write hf://owner/name"):
        load_torch(address)
