"""Compiled programs are kept, unless JAX was told where to keep them or not to."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import avit_jax
from avit_jax.runtime.compilation_cache import use_compilation_cache


@pytest.fixture(autouse=True)
def restored():
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_go_to_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "avit_jax"))


def test_programs_are_kept_although_jax_has_run_one_before(tmp_path, monkeypatch):
    """JAX would decide with its first program, and in a notebook that is not ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    jax.jit(lambda x: 3 * x)(2.0)
    use_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.jit(lambda x: 5 * x)(2.0)
    assert list(tmp_path.rglob("*-cache"))


def test_a_folder_chosen_by_the_user_stays(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_a_program_knows_whether_it_came_from_the_cache(tmp_path):
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    model = avit_jax.create_model("deit_micro_patch4_32", num_classes=5, depth=2, patch_size=16)
    params = model.init(jax.random.key(0))
    first, second = (model.compile(params, batch_size=8) for _ in range(2))
    compilation_cache.reset_cache()
    assert not first.compile_cached
    assert second.compile_cached
