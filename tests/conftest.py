"""Eight simulated devices, set before JAX is first used; compiled programs that are kept."""

import gc
import os

import pytest

from tests import compiling

compiling.prepare(os.environ)


def pytest_configure(config: pytest.Config) -> None:
    """Compile as quickly as can be, and keep programs for other tests, workers and runs.

    Compiling takes most of the time of these tests. Machine code is made in an older way where JAX
    still has it and left as LLVM makes it at first, which takes a quarter of that; XLA's passes
    stay as they are. Being in the environment, this holds for programs that tests start, too,
    which then write nothing to the user's own cache. With `JAX_DISABLE_MOST_OPTIMIZATIONS=false`
    there, as in a part of `.ci/run`, all are compiled as for users.
    """
    import jax

    if hasattr(config, "cache"):  # not with -p no:cacheprovider
        folder = str(config.cache.mkdir("compiled-programs"))
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what is imported and collected out of the garbage collector's sight, and call it less.

    Traces make so many objects that it looks through all the others again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
