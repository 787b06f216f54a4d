"""Weights of other libraries become arrays; what is no finite floating-point number is refused."""

import jax
import ml_dtypes
import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.pretrained.arrays import as_arrays, not_finite
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from tests.pretrained.test_names import counting_params, model_of


class Tensor:
    """As much of torch's tensor as is asked for, with the refusals that torch has."""

    def __init__(self, array, *, grad=False, narrow=False):
        self.array, self.grad, self.narrow = array, grad, narrow

    def detach(self):
        return Tensor(self.array, narrow=self.narrow)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def is_floating_point(self):
        return self.array.dtype.kind == "f" or self.narrow

    def element_size(self):
        return 2 if self.narrow else self.array.itemsize

    def numpy(self):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.narrow:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


def broken(name, array):
    model = model_of()
    return model, model.to_torch(counting_params(model)) | {name: array}


def test_tensors_of_torch_are_taken_with_gradient_and_in_bfloat16(tmp_path):
    ones = np.ones(3, ml_dtypes.bfloat16)
    found = as_arrays({"grad": Tensor(np.ones(3), grad=True), "narrow": Tensor(ones, narrow=True)})
    assert {name: array.dtype.name for name, array in found.items()} == {
        "grad": "float64",
        "narrow": "float32",
    }
    save_torch(tmp_path / "x.pth", {"grad": Tensor(np.ones(3), grad=True)})
    assert load_torch(tmp_path / "x.pth")["grad"].tolist() == [1, 1, 1]
    assert as_arrays({"jax": jax.numpy.ones(2)})["jax"].tolist() == [1, 1]


def test_what_is_no_array_is_named():
    with pytest.raises(UserError, match="this is a list: pass what"):
        as_arrays([1])
    with pytest.raises(UserError, match="texts, but one is 3"):
        as_arrays({3: np.ones(2)})
    sparse = Tensor(np.ones(2), grad=True)
    sparse.detach = lambda: sparse
    with pytest.raises(UserError, match=r"x is a Tensor that NumPy cannot hold \(Can't call"):
        as_arrays({"x": sparse})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool, np.complex64, "S3", object])
def test_weights_that_are_no_floating_point_numbers_are_refused(dtype):
    model, weights = broken("head.bias", np.ones(5).astype(dtype))
    with pytest.raises(
        UserError, match=r"1 of these 32 weights are no floating-point .*head\.bias"
    ):
        model.from_torch(weights)


@pytest.mark.parametrize("name", ["head.weight", "pos_embed", "blocks.1.norm2.bias", "cls_token"])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.float32, np.nan),
        (np.float16, 1e6),
        (ml_dtypes.bfloat16, -np.inf),
        (np.float64, 1e300),  # finite, but not as float32
    ],
    ids=str,
)
def test_weights_that_are_not_finite_are_refused_where_they_are_read(name, dtype, value):
    model, weights = broken("none", np.zeros(0))
    del weights["none"]
    with np.errstate(over="ignore"):
        weights[name] = np.array(weights[name], dtype)
        weights[name].flat[0] = value
    with pytest.raises(UserError, match=rf"1 of these 32 .* infinite \({name} in 1 of ") as refusal:
        model.from_torch(weights)
    assert len(str(refusal.value)) <= 400


def test_numbers_are_counted_as_float32_holds_them():
    assert not_finite(np.array([1, np.nan, np.inf, 1e39, 3e38])) == 3
    assert not_finite(np.zeros(0)) == 0
