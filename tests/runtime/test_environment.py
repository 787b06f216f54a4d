"""What surrounds a run does not change what it computes or whether it can speak."""

import io

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.errors import UserError
from avit_jax.runtime import environment
from avit_jax.runtime.tables import table


@pytest.mark.parametrize(
    "encoding, wanted",
    [
        ("cp1252", "| naïve x ²  4 ? |"),
        ("ascii", "| na?ve x 2  4 ? |"),
        ("utf-8", "│ naïve × ²  4 犬 │"),
    ],
)
def test_tables_are_printed_in_any_encoding(encoding, wanted):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    environment.print_anything(stream)
    print(table([("naïve × ²", "4 犬")], "x").replace("   ", "  "), file=stream, flush=True)
    line = written.getvalue().decode(encoding).splitlines()[3]
    assert line == (wanted.replace(" x ", " × ") if encoding == "cp1252" else wanted)


def test_a_stream_of_somebody_else_is_left_alone():
    environment.print_anything(object())


@pytest.mark.parametrize(
    "name, value",
    [
        ("jax_enable_x64", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
    ],
)
def test_settings_that_would_change_dtypes_are_undone(name, value, caplog):
    before = getattr(jax.config, name)
    caplog.set_level("INFO", "avit_jax")
    jax.config.update(name, value)
    try:
        environment.use_own_dtypes()
        assert getattr(jax.config, name) == before
    finally:
        jax.config.update(name, before)
    assert f"{name} is {value}" in caplog.text


@pytest.mark.parametrize(
    "model", ["avit_micro_patch4_32", "t2t_vit_7", "adavit_deit_micro_patch4_32"]
)
def test_parameters_are_float32_whatever_jax_would_take(model):
    with jax.enable_x64(True):
        params = avit_jax.create_model(model).abstract_params()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "error, said",
    [
        (AssertionError(), "JAX_PLATFORMS='cuda': install JAX for that device"),
        (
            RuntimeError("Unable to initialize\nbackend 'tpu': (set JAX_PLATFORMS='' to ...)"),
            r"'cuda' \(Unable to initialize backend 'tpu':\): install",
        ),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, error, said):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=said):
        environment.require_device()
