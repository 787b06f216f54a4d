"""Commands for which the modes of files hold, though a superuser may have begun them."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile

from tests.survival.fault import NotHere

VERSION = 0x20080522  # of Linux's capabilities: two words for each of three sets


def obey_modes() -> None:
    """In the process of a command: it gives up all that a superuser may do beyond others."""
    if os.geteuid() == 0:
        header, none = struct.pack("Ii", VERSION, 0), bytes(24)
        assert ctypes.CDLL(None).capset(header, none) == 0
    with tempfile.NamedTemporaryFile() as probe:
        os.chmod(probe.name, 0)
        try:
            open(probe.name).close()
        except PermissionError:
            return
    raise AssertionError("modes of files do not hold in this process")


def require() -> None:
    """Raises `NotHere` where modes cannot be made to hold."""
    if os.geteuid() == 0 and sys.platform != "linux":
        raise NotHere("only Linux's superuser can be made to obey modes")
