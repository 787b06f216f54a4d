"""Compiled programs, kept on disk between processes unless JAX is set up otherwise.

`JAX_COMPILATION_CACHE_DIR` chooses another folder, `JAX_ENABLE_COMPILATION_CACHE=false` none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

SLOW_SECONDS = 1.0  # programs that compile faster are not worth a file
HIT = "/jax/compilation_cache/cache_hits"  # the event that JAX records


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder."""
    if jax.config.jax_compilation_cache_dir:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "avit_jax" / f"{platform.machine()}-{_processor_features()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SLOW_SECONDS)
    # JAX decides with its first program, which Python users may have run before this.
    compilation_cache.reset_cache()


@contextlib.contextmanager
def cache_hits() -> Iterator[list[str]]:
    """A list with one entry for each program that this thread has taken from the cache since."""
    hits: list[str] = []
    thread = threading.get_ident()

    def listen(event: str, **_: object) -> None:
        if event == HIT and threading.get_ident() == thread:
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(listen)


def _processor_features() -> str:
    """A short hash of the instructions that the processor has.

    Compiled programs use them, so machines that share a home directory need folders of their own.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(features.encode()).hexdigest()[:12]
