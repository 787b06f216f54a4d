"""Weights from the Hugging Face Hub, for paths such as `hf://timm/deit_tiny_patch16_224.fb_in1k`."""

from __future__ import annotations

from pathlib import Path

from avit_jax.errors import UserError
from avit_jax.pretrained import shards

PREFIX = "hf://"


def fetch(address: str) -> Path:
    """The local copy of `hf://owner/name`'s weights, downloaded once into the hub's own cache.

    Where they lie in shards it is that of their index, with the shards beside it.

    Args:
        address: `hf://owner/name`, or `hf://owner/name/file` for one file of several.

    Raises:
        UserError: the address, the package, the repository, the file or the network is missing.
        Unreadable: an index that is none.
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
    candidates = (file,) if file else (*shards.WHOLE, *shards.INDICES)
    for candidate in candidates:
        try:
            found = Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", candidate))
            break
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
    else:
        raise UserError(
            f"{address} has no file {', '.join(candidates)}: name one that it has, as "
            "hf://owner/name/file."
        )
    folder, _, last = candidate.rpartition("/")
    for shard in shards.shards_of(found) if last.endswith(shards.INDEX) else ():
        there = f"{folder}/{shard}" if folder else shard
        try:
            huggingface_hub.hf_hub_download(f"{owner}/{name}", there)
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise _unreachable(address, error) from None
            raise UserError(
                f"{address} lists {shard}, which it does not have: take weights from elsewhere."
            ) from None
        except Exception as error:
            raise _unreachable(address, error) from None
    return found


def _unreachable(address: str, error: Exception) -> UserError:
    return UserError(
        f"{address} could not be downloaded ({type(error).__name__}): check the network, or give "
        "the path of a file."
    )
