"""Mistakes that Python code makes on a GPU, to be planted one at a time, each with a check that must see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_runs
from model_calls import copies_by_layers, flat, gradient, loss_of, model_of
from primitive_calls import DEVICE, as_trained, check_numbers, check_types, results, rounded
from standin import cupy
from step_arrays import BFLOAT16, FLOAT16, FLOAT32, FLOAT64

from minilong.audit import LAWS, SUBJECTS, load
from minilong.audit.device import OnDevice
from minilong.audit.laws.primitives import shapes_of
from minilong.audit.primitives import laws
from minilong.audit.primitives.cases import fill
from minilong.audit.run import run_law
from minilong.autodiff import REGISTRY, value_and_grad

load()

Check = Callable[[Path], None]


@dataclass(frozen=True)
class Mutant:
    """A piece of a module's text that occurs there once, and what stands there instead (`planted_code.py`); the check
    that sees it, and what that raises then, as a pattern."""

    module: str
    old: str
    new: str
    why: str
    check: Check
    says: str


# Checks


def primitive(name: str, dtype: Any) -> Check:
    """The form of a primitive on a few calls: types, numbers, and that nothing waits."""

    def check(_: Path) -> None:
        p = REGISTRY[name]
        for seed, front, lacks in ((1, (), 0), (2, (2,), 0), (3, (2, 3), 5)):
            recipe = {"sizes": (3, 5, 2, 4), "square": False, "front": front, "lacks": lacks}
            case = rounded(as_trained(fill(p, shapes_of(p, recipe), seed), seed), dtype)
            there = case.on(DEVICE)
            with cupy.no_sync(h2d=False):
                found = results(there)
            check_types(case, found, dtype)
            check_numbers(case, found, dtype, 2.0)

    return check


def pure(name: str) -> Check:
    """A primitive writes to nothing that it is given."""

    def check(_: Path) -> None:
        p = REGISTRY[name]
        recipe = {"sizes": (3, 5, 2, 4), "square": False, "front": (2,), "lacks": 0}
        laws.purity(fill(p, shapes_of(p, recipe), 1).on(DEVICE))

    return check


def law(name: str) -> Check:
    """A law on our implementations."""

    def check(_: Path) -> None:
        for s in SUBJECTS.values():
            if s.kind == LAWS[name].kind:
                failure = run_law(LAWS[name], OnDevice(s.f, DEVICE), examples=3, patience=0).failure
                assert failure is None, failure.message

    return check


def model(name: str, dtype: Any = FLOAT64) -> Check:
    """Loss and gradient of a model, without waiting."""

    def check(_: Path) -> None:
        value, found, _forms = gradient(name, dtype, packed=True)
        right, of = value_and_grad(loss_of(name, packed=True))(model_of(name))
        bound = {FLOAT64: 1e-12, FLOAT32: 1e-5, BFLOAT16: 0.1}[dtype]
        assert abs(float(value) - float(right)) <= bound, "the loss is off"
        error = abs(flat(found) - flat(of)).max()
        assert error <= bound * abs(flat(of)).max(), f"the gradient is off by {error:.2g}"

    return check


def copies(name: str) -> Check:
    """What is copied to the device for a model does not grow with its layers."""

    def check(_: Path) -> None:
        counts = copies_by_layers(name)
        assert counts[0] == counts[1], f"{counts} copies to the device in 2 and in 3 layers"

    return check


def steps(precision: str) -> Check:
    """Steps of a training run in this precision, of which the second may not wait."""

    def check(folder: Path) -> None:
        import sys

        device_runs.BOUNDS, all_of_them = {precision: 1.0}, device_runs.BOUNDS
        try:
            device_runs.check_no_waiting("fake", sys.modules["cupyx"], folder)
        finally:
            device_runs.BOUNDS = all_of_them

    return check


# Mistakes

HOST = "device array: use the array's own library|Unsupported type .*numpy.ndarray|Implicit conversion"

MUTANTS = (
    Mutant(
        "autodiff.ops", "return xp.tanh(x)", "return numpy.tanh(x)",
        "a stray np in a primitive", primitive("tanh", FLOAT32), "numpy.tanh of a device array",
    ),
    Mutant(
        "autodiff.ops", "(xp.arange(x_shape[-1]) == indices", "(numpy.arange(x_shape[-1]) == indices",
        "np.arange in a rule", primitive("take_along", FLOAT64), HOST,
    ),
    Mutant(
        "attention.reach",
        "hidden = xp.zeros(len(distance), bool)",
        "hidden = numpy.zeros(len(distance), bool)",
        "np.zeros in attention",
        law("blockwise-cotangents/definition"),
        HOST,
    ),
    Mutant(
        "nn.view",
        'for name in ("turns", "key_turns", "back", "relative")}',
        'for name in ("turns", "key_turns", "back", "relative")} | {"turns": self.turns}',
        "a missing `beside`: every layer copies the turns anew",
        copies("rotary"),
        "copies to the device in 2 and in 3 layers",
    ),
    Mutant(
        "nn.layers", "indices=beside(stop_gradient(self.table), indices)", "indices=indices",
        "a missing `beside`: tokens stay on the host", model("rotary"), "numpy|ndarray",
    ),
    Mutant(
        "nn.models",
        "x = x + beside(stop_gradient(x), table).astype(x.dtype, copy=False)",
        "x = x + table.astype(x.dtype, copy=False)",
        "a missing `beside`: a table of positions stays on the host",
        model("sinusoidal"),
        "numpy.ndarray|NumPy and CuPy",
    ),
    Mutant(
        "nn.view",
        "segments=put(mask.segments)",
        "segments=mask.segments",
        "a missing `beside`: every layer copies the segments anew",
        copies("rotary"),
        "copies to the device in 2 and in 3 layers",
    ),
    Mutant(
        "autodiff.loss_on_device", "xp.maximum((targets != ignore_index).sum(), 1)",
        "max(int((targets != ignore_index).sum()), 1)",
        "int() in the step: the number of targets is asked of the device", model("rotary"), r"int\(\) waits",
    ),
    Mutant(
        "autodiff.on_device", "    for x in gradients:\n", "    for x in gradients if g != 1 else ():\n",
        "`g == 1` to save a product", model("rotary"), r"bool\(\) waits",
    ),
    Mutant(
        "autodiff.loss_on_device", "rows, flat = fold(hidden), targets.reshape(-1)",
        "rows, flat = (x[targets.reshape(-1) != ignore_index] for x in (fold(hidden), targets.reshape(-1)))",
        "a mask as an index, to leave ignored rows out", model("rotary"), "boolean mask index waits",
    ),
    Mutant(
        "train.update", "loss = loss / scale", "loss = loss / scale.item()",
        ".item() in the step", steps("float16"), r"\.item\(\) waits",
    ),
    Mutant(
        "nn.fixed_point", "self.waits = self.xp is np", "self.waits = True",
        "a range is checked on the host", model("reversible", FLOAT32), r"bool\(\) waits",
    ),
    Mutant(
        "attention.on_device", "return matmul(xp, weights, v), weights", "return xp.matmul(weights, v), weights",
        "CuPy's batched product", primitive("attend", FLOAT32), "a product over more than two axes",
    ),
    Mutant(
        "autodiff.ops", "return products.matmul(xp, a, b)", "return a @ b",
        "the operator @ in the place of `products`", primitive("matmul", FLOAT16), "a product over more than two axes",
    ),
    Mutant(
        "autodiff.device", "c if c is None or name in base.shared else c.astype(dtype)", "c",
        "a form's rule forgets to narrow", primitive("tanh", BFLOAT16), "a cotangent of float32 where bfloat16 is due",
    ),
    Mutant(
        "autodiff.device", "return (y[0].astype(dtype), *y[1:]) if base.aux else y.astype(dtype)", "return y",
        "a form forgets to narrow its value", primitive("power", BFLOAT16), "a value of float32 of bfloat16",
    ),
    Mutant(
        "autodiff.on_device", "_vjp(array_module(g), g, x, gain, mean, inverse)",
        "_vjp(array_module(g), g, x, gain * 0 + 1, mean, inverse)",
        "a rule without the gain", primitive("layer_norm", FLOAT32), "cotangent 1 is off",
    ),
    Mutant(
        "autodiff.on_device", "interleaved=interleaved, inverse=True),)", "interleaved=interleaved),)",
        "the rule turns the same way", primitive("rotate", FLOAT32), "cotangent 1 is off",
    ),
    Mutant(
        "autodiff.on_device", "return (dropout_kernels.dropout(array_module(g), g, keep.key.words, keep.rate),)",
        "return (dropout_kernels.dropout(array_module(g), g, keep.key.fold(1).words, keep.rate),)",
        "the rule drops others", primitive("dropout", FLOAT32), "cotangent 1 is off",
    ),
    Mutant(
        "attention.on_device", "        weights *= allowed\n", "        pass\n",
        "a query that sees nothing attends to all", primitive("attend", FLOAT32), "value is off",
    ),
    Mutant(
        "attention.on_device",
        "far(scores.dtype)).astype(scores.dtype)",
        "-1e30).astype(scores.dtype)",
        "a number beyond float16's range",
        primitive("attend", FLOAT16),
        "is off by nan",
    ),
    Mutant(
        "attention.on_device", "return (x * number).astype(x.dtype, copy=False)", "x *= number\n    return x",
        "queries are scaled in place, where others hold them", pure("attend"), "written to|other bits",
    ),
    Mutant(
        "autodiff.loss_on_device", "return xp.float32 if is_half(g) else g.dtype", "return xp.float32",
        "float32 where float64 is computed", primitive("linear", FLOAT64), "float32",
    ),
    Mutant(
        "autodiff.on_device", "(x.shape[1], g.shape[1]), accumulated(xp, g))", "(x.shape[1], g.shape[1]), g.dtype)",
        "cotangents of weights in 16 bits", primitive("linear", BFLOAT16), "a cotangent of bfloat16 where float32",
    ),
    Mutant(
        "autodiff.ops", "share = ((u > v) + 0.5 * (u == v)).astype(u.dtype)", "share = (u > v) + 0.5 * (u == v)",
        "booleans and a number make float64", primitive("maximum", FLOAT32), "a cotangent of float64 where float32",
    ),
    Mutant(
        "autodiff.loss_on_device", ".sum(), 1) if denominator is None else denominator", ".sum(), 1)",
        "a denominator is ignored", primitive("linear_cross_entropy", FLOAT64), "off by",
    ),
)  # fmt: skip
