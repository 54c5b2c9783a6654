"""Loss and gradient of every kind of model on the stand-in's device: by kernels, without waiting, in each type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from model_calls import KINDS, copies_by_layers, flat, gradient, loss_of, model_of
from primitive_calls import HALVES
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TYPES

from minilong.autodiff import value_and_grad
from minilong.autodiff.device import DeviceForm

BOUNDS = {FLOAT64: 1e-12, FLOAT32: 1e-5, FLOAT16: 1.2e-2, BFLOAT16: 0.1}
"""Of the gradient's relative error in norm. What was found for the kinds here is a third of it at most."""

FIXED_POINT = ("reversible", "momentum")
"""Depths that refuse types of 16 bits."""


@pytest.fixture(scope="module", autouse=True)
def stand_in() -> Iterator[None]:
    with cupy.install():
        yield
        cupy.check_guards()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradient_are_the_cpus(name: str, dtype: Any) -> None:
    if dtype in HALVES and KINDS[name].get("depth") in FIXED_POINT:
        with pytest.raises(TypeError, match="reversible depth needs float32 or float64"):
            gradient(name, dtype, packed=False)
        return
    packed = dtype in (FLOAT32, BFLOAT16)
    model, loss = model_of(name), loss_of(name, packed)
    right, right_gradient = value_and_grad(loss)(model)
    value, found, forms = gradient(name, dtype, packed)
    bound = BOUNDS[dtype]
    assert value.dtype == (FLOAT64 if dtype == FLOAT64 else FLOAT32)
    assert abs(float(value) - float(right)) <= bound * float(right)
    error, size = np.linalg.norm(flat(found) - flat(right_gradient)), np.linalg.norm(flat(right_gradient))
    assert error <= bound * size, f"the gradient is off by {error / size:.2g} of its norm"
    by_kernel = {form.name for form in forms if isinstance(form, DeviceForm) and form is form.base.on_device}
    fused = {form.name for form in forms if form.ref is not None}
    assert len(by_kernel) >= 4
    assert fused <= by_kernel


@pytest.mark.parametrize("name", [name for name in KINDS if name != "dynamic"])
def test_layers_share_what_is_copied_to_the_device(name: str) -> None:
    """(Under dynamic scaling a layer makes the turns of late queries by itself.)"""
    first, second = copies_by_layers(name)
    assert 0 < first == second
