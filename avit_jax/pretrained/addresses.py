"""Where weights lie: on a local disk, in an object store or on a hub; here, as a local file."""

from __future__ import annotations

from pathlib import Path

from avit_jax.errors import UserError
from avit_jax.pretrained import hub, shards
from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local


def on_disk(address: str) -> Path:
    """The local file or folder of an address; of one that is elsewhere a copy.

    Raises:
        UserError: an address of a kind that nothing here reads, or what a hub says.
        FileNotFoundError: there is nothing in that store.
    """
    if address.startswith(hub.PREFIX):
        return hub.fetch(address)
    if is_local(address):
        return Path(address).expanduser()
    if address.partition("://")[0] not in stores.SCHEMES:
        raise UserError(f"{address} is not a local file: copy it to a local disk first.")
    if address.endswith(shards.INDEX):  # the shards lie beside it
        folder, _, name = address.rpartition("/")
        return stores.local_copy(folder) / name
    return stores.local_copy(address)
