"""The published implementations are reproduced, number by number."""

import jax
import numpy as np
import pytest

from tests.parity import adavit, avit, dvt, t2t
from tests.parity.golden import FOLDER, group, load

SLOW = ("tiny_t2t_3exit", "tiny_deit_2exit", "tiny_deit_flag_variants", "tiny_depth12_b4")


@pytest.mark.parametrize(
    ("work", "case"),
    [
        pytest.param(
            work,
            case,
            id=f"{work.__name__.rpartition('.')[2]}/{case}",
            # Those that take longest to compile, of whose parts other cases have nearly all.
            marks=[pytest.mark.slow] * (case in SLOW),
        )
        for work in (avit, t2t, adavit, dvt)
        for case in work.CASES
    ],
)
def test_every_golden_number_is_reproduced(work, case):
    found = list(work.differences(case))
    assert len(found) >= 10
    assert not [d for d in found if not d.found <= d.allowed]


def test_masking_passes_gradients_of_halted_tokens_through():
    """The identity backward matters here: an ordinary product gives the `blocked` gradients."""
    golden = load("avit/tiny_defaultgate_b3")
    model = avit.model_of(golden, "upstream")
    params = model.from_torch(group(golden, "param/"))
    images = golden["in/images"].transpose(0, 2, 3, 1)

    @jax.jit
    @jax.grad
    def gradient(params):
        return model.apply(params, images).metrics["prior_divergence"]

    ours = model.to_torch(gradient(params))
    blocked = group(golden, "grad_kl_quirk_blocked/")
    passed = group(golden, "grad_kl_quirk/")
    assert blocked
    for name, array in blocked.items():
        np.testing.assert_allclose(ours[name], passed[name], atol=1e-4 * np.abs(array).max())
    assert any(
        np.abs(ours[name] - array).max() > 0.1 * np.abs(array).max()
        for name, array in blocked.items()
    )


def test_every_recorded_file_is_compared():
    assert len(avit.CASES) == 8
    for name, cases, elsewhere in (
        ("t2t", t2t.CASES, {"sinusoid_tables"}),
        ("adavit", adavit.CASES, {"teacher_loss", "flops_dict_deit_s", "flops_dict_t2t_19"}),
        ("dvt", dvt.CASES, set()),
    ):
        assert {file.stem for file in (FOLDER / name).glob("*.npz")} == {*cases, *elsewhere}
