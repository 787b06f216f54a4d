import importlib.util
import types

import pytest
import tensorflow_datasets as tfds

from avit_jax.data import prepare


@pytest.fixture
def tensorflow_is(monkeypatch):
    def install(present: bool) -> None:
        found = importlib.util.find_spec

        def find_spec(name, *rest):
            if name == "tensorflow":
                return object() if present else None
            return found(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return install


@pytest.fixture
def fake_builder(monkeypatch):
    """A builder of TFDS that records its arguments and pretends to download."""
    calls = []

    def builder(name, **arguments):
        calls.append({"name": name, **arguments})
        info = types.SimpleNamespace(splits={}, full_name=f"{name}/1.0.0", data_dir="there")

        def download_and_prepare(*, download_config):
            calls.append({"manual_dir": download_config.manual_dir})
            if name == "by_hand" and download_config.manual_dir is None:
                raise AssertionError("Manual directory\n does not exist")
            info.splits["train"] = types.SimpleNamespace(num_examples=50_000)

        return types.SimpleNamespace(info=info, download_and_prepare=download_and_prepare)

    monkeypatch.setattr(tfds, "builder", builder)
    return calls


def test_array_record_is_asked_for(fake_builder, tensorflow_is, capsys):
    tensorflow_is(True)
    prepare.main(["cifar10", "--data_dir", "gs://bucket/tfds", "--manual_dir", "/tars"])
    assert fake_builder[1:] == [
        {"name": "cifar10", "data_dir": "gs://bucket/tfds", "file_format": "array_record"},
        {"manual_dir": "/tars"},
    ]
    printed = capsys.readouterr().out
    assert printed == "cifar10/1.0.0 is prepared as array_record in there: train 50,000 examples\n"


def test_files_to_download_by_hand_are_asked_for(fake_builder, tensorflow_is):
    tensorflow_is(True)
    with pytest.raises(SystemExit, match=r"by hand \(Manual directory does not exist\); put its"):
        prepare.main(["by_hand", "--data_dir", "/data"])


def test_missing_tensorflow_is_one_sentence(tmp_path, tensorflow_is):
    tensorflow_is(False)
    with pytest.raises(SystemExit, match=r"needs TensorFlow.*pip install 'avit_jax\[prepare\]'"):
        prepare.main(["cifar10", "--data_dir", str(tmp_path)])


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no dataset 'no_such_thing' in TFDS; write a name from"):
        prepare.main(["no_such_thing", "--data_dir", str(tmp_path)])


def test_a_prepared_dataset_is_left_alone_without_tensorflow(prepare_tiny, tensorflow_is, capsys):
    tensorflow_is(False)
    prepare.main(["tiny", "--data_dir", prepare_tiny()])
    assert "tiny/1.0.0 is prepared as array_record" in capsys.readouterr().out


def test_a_copy_in_another_format_is_not_overwritten(prepare_tiny):
    with pytest.raises(SystemExit, match="prepared as tfrecord; write another --data_dir, or del"):
        prepare.main(["tiny", "--data_dir", prepare_tiny(file_format="tfrecord")])
