"""Weights from the Hugging Face Hub, for paths such as `hf://timm/deit_tiny_patch16_224.fb_in1k`."""

from __future__ import annotations

from pathlib import Path

from avit_jax.errors import UserError

PREFIX = "hf://"
# Tried in this order, since the first kind cannot hold anything but tensors.
FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(address: str) -> Path:
    """The local copy of `hf://owner/name`'s weights, downloaded once into the hub's own cache.

    Args:
        address: `hf://owner/name`, or `hf://owner/name/file` for one file of several.

    Raises:
        UserError: the address, the package, the repository, the file or the network is missing.
    """
    owner, _, rest = address.removeprefix(PREFIX).partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise UserError(
            f"{address} names no repository: write hf://owner/name, for example "
            "hf://timm/deit_tiny_patch16_224.fb_in1k."
        )
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UserError(
            f"{address} needs the package huggingface_hub: install it with "
            "`pip install avit_jax[hub]`, or give the path of a file."
        ) from None
    candidates = (file,) if file else FILES
    for candidate in candidates:
        try:
            return Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", candidate))
        except errors.RepositoryNotFoundError:
            raise UserError(
                f"{address} was not found: correct the name, or log in with `hf auth login` if the "
                "repository is private."
            ) from None
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise _unreachable(address, error) from None
        # The client's network errors are those of an HTTP library that differs between releases.
        except Exception as error:
            raise _unreachable(address, error) from None
    raise UserError(
        f"{address} has no file {' or '.join(candidates)}: name one that it has, as "
        "hf://owner/name/file."
    )


def _unreachable(address: str, error: Exception) -> UserError:
    return UserError(
        f"{address} could not be downloaded ({type(error).__name__}): check the network, or give "
        "the path of a file."
    )
