import pytest

from avit_jax import command_line
from avit_jax.data import folder as folders
from avit_jax.data.example import BadExample, read_file
from avit_jax.data.listing import files_below
from avit_jax.errors import StoreUnreachable, UserError
from avit_jax.runtime import stores
from avit_jax.runtime.files import open_atomic, write_json_atomic
from avit_jax.runtime.replaced_folder import replaced_folder
from avit_jax.runtime.store_errors import in_words


def test_a_password_in_a_path_is_refused_and_not_repeated():
    with pytest.raises(UserError, match="names no bucket") as refusal:
        stores.as_path("gs://me:secret@bucket/run")
    assert "secret" not in str(refusal.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: None)
    stores._prepare.cache_clear()
    with pytest.raises(UserError, match=r"need the package s3fs: .* '.\[s3\]'"):
        stores.as_path("s3://bucket/images")
    stores._prepare.cache_clear()


def test_a_workdir_is_refused_where_no_checkpoints_can_be_kept():
    with pytest.raises(UserError, match=r"--workdir s3://bucket/run .* Orbax keeps no checkpoints"):
        command_line.workdir_path("s3://bucket/run")
    with pytest.raises(UserError, match="--output is an address that begins with ftp://"):
        command_line.given_path("--output", "ftp://me:secret@host/x")


def test_a_mistyped_bucket_is_said_before_anything_is_computed_and_not_made(server):
    place = command_line.given_path("--workdir", "gs://mistyped/run")
    with pytest.raises(UserError, match="--workdir gs://mistyped/run: there is no such bucket"):
        command_line.refuse_unwritable("--workdir", place)
    stores.make_folder(place)
    assert not stores.as_path("gs://mistyped").exists()


def test_a_place_that_can_be_written_to_is_left_as_it_was(folder):
    command_line.refuse_unwritable("--workdir", folder)
    assert not folder.exists()


def _raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_what_a_store_refuses_is_one_sentence_without_what_it_said():
    from gcsfs.retry import HttpError

    signed = "https://storage/x?X-Goog-Signature=secret"
    refused = in_words(_raised(HttpError({"code": 403, "message": signed})), "gs://b/x")
    assert "gs://b/x: the store refuses access" in str(refused) and "secret" not in str(refused)
    failed = _raised(RuntimeError("no checkpoint"), HttpError({"code": 503, "message": signed}))
    unreachable = in_words(failed, "gs://b/x")
    assert (
        isinstance(unreachable, StoreUnreachable)
        and unreachable.status == 69
        and "secret" not in str(unreachable)
    )
    tensorstore = ValueError("NOT_FOUND: Error writing [http_response_code='404']")
    assert "no such bucket" in str(in_words(_raised(tensorstore), "gs://b/x"))


def test_other_errors_are_not_taken_for_those_of_a_store():
    for error in (KeyError("depth"), FileNotFoundError("runs/x"), UserError("no weights")):
        assert in_words(_raised(error), "gs://b/x") is None


def test_folders_of_images_are_listed_as_on_a_disk(folder, tmp_path):
    names = ("train/b/1.png", "train/b/z/2.png", "train/a/3.png", "train/a/.hidden/4.png")
    names += ("train/a/notes.txt", "train/a.png", "train/Thumbs.db", "train/a/10.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for root in (tmp_path, folder):
            (root / name).write_bytes(name.encode())
    assert files_below(folder / "train") == files_below(tmp_path / "train")
    stored, local = (
        folders.FolderSource(split="train", data_dir=str(root)) for root in (folder, tmp_path)
    )
    assert stored.class_names == local.class_names == ("a", "b")
    assert [stored[index] for index in range(4)] == [local[index] for index in range(4)]
    with pytest.raises(BadExample, match="no such object"):
        read_file(str(folder / "train" / "gone.png"))


def test_a_file_is_uploaded_when_it_is_whole(folder):
    with pytest.raises(KeyError), open_atomic(folder / "x.pth") as file:
        file.write(b"half")
        raise KeyError
    assert not (folder / "x.pth").exists()
    with open_atomic(folder / "x.pth") as file:
        file.write(b"whole")
    assert (folder / "x.pth").read_bytes() == b"whole"


def test_a_folder_replaces_another_of_its_kind_and_what_a_kill_has_left(folder, monkeypatch):
    def write(names, **options):
        with replaced_folder(folder / "page", **options) as new:
            for name in names:
                write_json_atomic(new / name, name)

    write(["index.html", "images/old.png"])
    with pytest.raises(UserError, match="exists and is no earlier report"):
        write(["index.html"])
    write(["index.html"], may_replace=lambda target: True)
    assert list(stores.files_in(folder / "page")) == ["index.html"]

    with monkeypatch.context() as killed:
        killed.setattr(stores, "files_in", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(["half.png"], may_replace=lambda target: True)
    assert stores.is_unfinished(folder / "page")
    write(["index.html"])
    assert list(stores.files_in(folder / "page")) == ["index.html"]
