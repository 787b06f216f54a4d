"""Eight simulated devices, set before JAX is first used; compiled programs that are kept."""

import os

import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")


def pytest_configure(config: pytest.Config) -> None:
    """Compile as quickly as can be, and keep programs for other tests, workers and runs.

    Compiling takes most of the time of these tests. Machine code is left as LLVM makes it at first,
    which halves that; XLA's own passes stay as they are. Programs that tests start are compiled as
    for users: nothing of this is in the environment. With `JAX_DISABLE_MOST_OPTIMIZATIONS=false` in
    it, as in a part of `.ci/run`, tests are, too.
    """
    import jax

    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        jax.config.update("jax_disable_most_optimizations", True)
    if hasattr(config, "cache"):  # not with -p no:cacheprovider
        folder = config.cache.mkdir("compiled-programs")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
