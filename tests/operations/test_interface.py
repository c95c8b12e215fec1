"""Every backend defines every operation of the contract, with the same signature."""

from __future__ import annotations

import inspect

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.numpy import NumpyBackend
from tests.cases import DTYPES, random
from tests.tolerance import assert_close

OPERATIONS = sorted(Backend.__abstractmethods__)
# of others, unless a backend knows better
COMPOSED = [
    "batch_norm_pool_train", "conv_dgrad_through", "conv_fprop_masked", "conv_norm_infer",
    "conv_norm_train", "conv_pool_backward", "conv_pool_forward", "norms_on_load",
]  # fmt: skip
CLASSES = [NumpyBackend, CudaBackend]


def test_the_contract_is_all_abstract_but_what_is_composed_and_the_context_of_a_run():
    public = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction)}
    public = {name for name in public if not name.startswith("_")}
    arrays = {"arranged", "free_memory", "transfers"}
    recording = {"memory", "allocating", "capture", "write"}
    assert public == {*OPERATIONS, *COMPOSED, *arrays, *recording, "running", "bind"}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("operation", [*OPERATIONS, *COMPOSED])
def test_signatures_are_identical(kind, operation):
    own, contract = getattr(kind, operation), getattr(Backend, operation)
    assert own is not contract or operation in COMPOSED
    # an annotation may be more precise than the contract's Array
    own, contract = (
        str(inspect.signature(f)).replace("np.ndarray", "Array") for f in (own, contract)
    )
    assert own == contract


@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_is_left_abstract(kind):
    assert not kind.__abstractmethods__


def test_a_backend_has_a_name_and_an_array_module(every_backend):
    assert every_backend.name in ("numpy", "cuda")
    assert isinstance(every_backend.xp.zeros(3), every_backend.xp.ndarray)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "int64", "uint8"])
def test_arrays_go_there_and_back(every_backend, dtype):
    given = random("there", (3, 4, 5), np.float64, 0, 9).astype(DTYPES.get(dtype, dtype))
    there = every_backend.asarray(given)
    assert every_backend.owns(there)
    assert_close(every_backend.to_numpy(there), given, magnitude=0)


def test_asarray_makes_contiguous_and_converts(every_backend):
    given = random("given", (3, 4, 5), np.float32)
    there = every_backend.asarray(given.transpose(2, 0, 1))
    assert there.flags.c_contiguous
    assert_close(every_backend.to_numpy(there), given.transpose(2, 0, 1), magnitude=0)
    half = every_backend.to_numpy(every_backend.asarray(given, ml_dtypes.bfloat16))
    assert_close(half, given.astype(ml_dtypes.bfloat16), magnitude=0)
    assert every_backend.to_numpy(every_backend.asarray([[1, 2], [3, 4]])).tolist() == [
        [1, 2],
        [3, 4],
    ]


def test_asarray_keeps_an_array_that_fits(every_backend):
    there = every_backend.asarray(np.ones(3, np.float32))
    assert every_backend.asarray(there) is there


def test_a_number_stays_a_number(every_backend):
    there = every_backend.asarray(np.array(2.5, np.float32))
    assert there.shape == ()
    assert every_backend.to_numpy(there).shape == ()


def test_to_numpy_copies(every_backend):
    there = every_backend.asarray(np.zeros(3, np.float32))
    here = every_backend.to_numpy(there)
    here[:] = 1
    assert every_backend.to_numpy(there).tolist() == [0, 0, 0]


def test_synchronize_returns(every_backend):
    assert every_backend.synchronize() is None


def test_other_arrays_are_not_owned(every_backend):
    assert not every_backend.owns([1.0, 2.0])
    assert not every_backend.owns(3.0)
