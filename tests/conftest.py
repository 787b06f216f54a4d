"""Eight simulated devices, set before JAX is first used; programs that trainings share."""

import os

import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """These trainings share their programs, and compiling one takes longer than running it."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    chosen = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in chosen}
    for settings in (chosen, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if settings is chosen:
            yield
