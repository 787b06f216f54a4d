"""Any classification dataset of TensorFlow Datasets, prepared as array_record, without TensorFlow.

array_record gives random access, which the deterministic pipeline rests on; tfrecord, the default
of TFDS, does not. The images stay encoded until the pipeline decodes them. TFDS is imported only
when such a dataset is opened, so that models run on machines without it.
"""

import re
from typing import Any

from etils import epath

from avit_jax.data.example import BadExample, Example, message_of
from avit_jax.errors import UserError


class TfdsSource:
    """One split of a prepared TFDS dataset, read at random as encoded bytes."""

    def __init__(
        self, name: str, *, split: str, data_dir: str | None, label_key: str | None = None
    ) -> None:
        """Opens `split` (sub-splits such as "train[:50%]" too) of a dataset under `data_dir`.

        Labels are the feature `label_key`; by default the one that the dataset itself names.

        Raises:
            UserError: the dataset is not prepared there; says how to prepare it; a package is
                missing; says which; unknown name or split, tfrecord files, or not a
                classification dataset.
        """
        import tensorflow_datasets as tfds

        builder = _open_builder(name, data_dir=data_dir)
        self._image_key, self._label_key = _supervised_keys(name, builder, label_key=label_key)
        _check_split(name, split, builder)
        decoders = {self._image_key: tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split=split, decoders=decoders)
        self.name = name
        self.class_names = tuple(builder.info.features[self._label_key].names)
        self._split = split

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """Returns the encoded image and its class; raises BadExample on a damaged record."""
        record = self.record(index)
        return Example(record[self._image_key], int(record[self._label_key]))

    def record(self, index: int) -> dict[str, Any]:
        """Returns all features of an example, the image encoded; raises as above."""
        try:
            return self._records[index]
        # array_record and TFDS raise various errors on damaged records; each is one bad example.
        except Exception as error:
            raise BadExample(f"cannot be read: {message_of(error)[:200]}") from error

    def describe(self, index: int) -> str:
        """Returns for example `imagenette/160px-v2 train[17]`."""
        return f"{self.name} {self._split}[{index}]"


def prepare_command(name: str, data_dir: str | None) -> str:
    """Returns the command that prepares a dataset where this module can read it."""
    return f"python -m avit_jax.data.prepare {name} --data_dir {data_dir or 'DIR'}"


def _open_builder(name: str, *, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    place = data_dir or "~/tensorflow_datasets (no data.dir and no TFDS_DATA_DIR given)"
    try:
        builder = _builder_of_any_version(name, data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"there is no dataset {name!r} in TFDS or prepared under {place}; write 'digits', "
            "'folder' or a name from tensorflow.org/datasets/catalog"
        ) from error
    except ImportError as error:
        if "gcsfs" in str(error):
            raise UserError(
                f"reading {data_dir} needs the package gcsfs; run pip install 'avit_jax[gcs]'"
            ) from error
        raise UserError(
            f"dataset {name!r} is not prepared under {place}; run {prepare_command(name, data_dir)}"
        ) from error
    except UserError:
        raise
    except ValueError as error:
        # TFDS puts its own call before the reason, and a list of every configuration after it.
        reason = str(error).rpartition('}": ')[2].partition("\n")[0].partition(". ")[0]
        raise UserError(
            f"TFDS cannot open dataset {name!r} ({reason}); {_what_is_there(name, data_dir)}write "
            "a configuration and version that it has"
        ) from error
    if not builder.info.splits:
        raise UserError(
            f"dataset {builder.info.full_name!r} is not prepared under {place}; "
            f"{_what_is_there(name, data_dir)}run {prepare_command(name, data_dir)}"
        )
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"dataset {name!r} under {place} is prepared as {builder.info.file_format.value}, "
            "which has no random access; prepare it as array_record in another directory: run "
            f"{prepare_command(name, None)}"
        )
    return builder


def _builder_of_any_version(name: str, data_dir: str | None) -> Any:
    """The builder of a name, also of a version that was prepared before TFDS's code changed.

    Raises:
        UserError: neither the code nor a folder is of the version that the name asks for.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except AssertionError as error:  # how TFDS says that its code has no such version
        folder = prepared(name, data_dir).get(name)
        if folder is not None:
            return tfds.builder_from_directory(folder)
        known = str(error).rpartition("only: ")[2].rstrip(". ")
        raise UserError(
            f"dataset {name!r} has no such version (TFDS knows {known}); "
            f"{_what_is_there(name, data_dir)}leave the version out"
        ) from error


def prepared(name: str, data_dir: str | None) -> dict[str, str]:
    """Folders of what is prepared of the dataset that `name` is of, by the names to open them with.

    Args:
        name: such as `imagenette/160px-v2:1.0.0`; what stands behind the dataset's own name may be
            wrong.
        data_dir: where to look; TFDS's own place if unset.
    """
    import tensorflow_datasets as tfds

    dataset = re.split("[/:]", name)[0]
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / dataset
    found = {}
    for depth in ("*", "*/*"):
        for file in root.glob(f"{depth}/dataset_info.json"):
            *config, version = file.parent.relative_to(root).parts
            found["/".join([dataset, *config]) + f":{version}"] = str(file.parent)
    return dict(sorted(found.items()))


def _what_is_there(name: str, data_dir: str | None) -> str:
    """The beginning of an advice, where anything of the dataset is prepared."""
    names = list(prepared(name, data_dir))
    return f"write {' or '.join(names[:3])}, which is prepared there, or " if names else ""


def _supervised_keys(name: str, builder: Any, *, label_key: str | None) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys if label_key is None else ("image", label_key)
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        features = {}
    if keys is None or len(keys) != 2 or not all(isinstance(key, str) for key in keys):
        keys = ("image", "label")
    wanted = (tfds.features.Image, tfds.features.ClassLabel)
    for key, kind in zip(keys, wanted, strict=True):
        if key not in features or not isinstance(features[key], kind):
            raise UserError(
                f"dataset {name!r} is not a classification dataset: its features are "
                f"{', '.join(sorted(features)) or 'not named'}, without an image and a class label "
                f"under {keys[0]!r} and {keys[1]!r}; choose one that has them"
            )
    return keys


def _check_split(name: str, split: str, builder: Any) -> None:
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        existing = ", ".join(map(repr, builder.info.splits))
        raise UserError(
            f"dataset {name!r} has no split {split!r}; write one of {existing}, or a part such as "
            "'train[:50%]'"
        ) from error
    if count == 0:
        raise UserError(f"split {split!r} of dataset {name!r} is empty; write a larger one")
