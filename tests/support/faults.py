"""Faults planted in the source of the library, to test that the gradient checks find them.

Each fault replaces one piece of the text of a class. The change is made in a copy of the module;
the library itself stays as it is. The tests demand that every fault is caught and that the right
tensor is named; ``python tests/support/faults.py`` prints the table.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minidl.activations import Tanh
from minidl.checks import Array, ContractError
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss
from minidl.maps import relumax
from minidl.testing.checks import check_layer, check_loss, check_simplex_map
from minidl.testing.report import FAILED, GradientReport, aligned

Check = Callable[[Any], GradientReport]
"""Checks the changed module."""

GRADIENT = "gradient"
CONTRACT = "contract"


@dataclass(frozen=True)
class Fault:
    """A fault, and what its report must name.

    Attributes
    ----------
    what : str
        A description.
    where : str
        Module and class.
    old, new : str
        A text that occurs exactly once in the class, and its replacement.
    check : callable
    tensor : str
        The tensor that the report must name.
    by : str
        The gradient itself, the name of a side condition, or the contract (an exception).
    index : tuple, optional
        The entry that the report must name; None in it stands for any.
    """

    what: str
    where: str
    old: str
    new: str
    check: Check
    tensor: str
    by: str = GRADIENT
    index: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """The words of the report about a fault, and whether they are right."""

    fault: Fault
    named: str
    right: bool


def plant(where: str, old: str, new: str) -> ModuleType:
    """Return a copy of a module of minidl in which the text of one class or function is changed.

    Raises
    ------
    ValueError
        If ``old`` does not occur exactly once in the class or function.
    """
    module_name, _, name = where.rpartition(".")
    module = importlib.import_module(f"minidl.{module_name}")
    source = inspect.getsource(getattr(module, name))
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    users = [inspect.getsource(c) for c in classes if c.__module__ == module.__name__]
    if source.count(old) != 1:
        raise ValueError(f"{where}: expected {old!r} once, found it {source.count(old)} times")
    changed = ModuleType(module.__name__)
    vars(changed).update(vars(module))
    for text in [source.replace(old, new), *(text for text in users if f"return {name}(" in text)]:
        exec(compile(text, f"<{where} with a fault>", "exec"), vars(changed))
    return changed


def try_fault(fault: Fault) -> Outcome:
    """Plant a fault, run its check, and compare the report with what it should name."""
    module = plant(fault.where, fault.old, fault.new)
    try:
        found = list(_found(fault.check(module)))
    except ContractError as error:
        return Outcome(fault, f"{CONTRACT}: {error}", fault.by == CONTRACT)
    gradients = {tensor for by, tensor, _, _ in found if by == GRADIENT}
    for by, tensor, index, text in found:
        # A wrong gradient must be the only one; a broken condition may make others wrong.
        alone = by != GRADIENT or gradients == {tensor}
        if by == fault.by and tensor == fault.tensor and alone and _fits(index, fault.index):
            return Outcome(fault, text, True)
    return Outcome(fault, "; ".join(text for *_, text in found) or "nothing", False)


def _found(report: GradientReport) -> Iterator[tuple[str, str | None, Any, str]]:
    """Yield the kind, the tensor, the index and the sentence of each failure."""
    for t in report.tensors:
        if t.verdict == FAILED:
            yield GRADIENT, t.name, t.worst.index if t.worst else None, str(t.worst or t.name)
    for c in report.conditions:
        if c.problem:
            yield c.name, c.tensor, c.index, f"{c.name}: {c.problem}"


def _fits(index: tuple[int, ...] | None, want: tuple[int | None, ...] | None) -> bool:
    return want is None or (
        index is not None and all(w in (None, i) for i, w in zip(index, want, strict=True))
    )


def _batch(*shape: int, dtype: type[np.floating[Any]] = np.float64) -> Array:
    return np.asarray(np.random.default_rng(1).standard_normal(shape), dtype)


# Square: the result of a transpose or a wrong axis has the right shape, only wrong numbers.
def linear(m: Any) -> GradientReport:
    return check_layer(m.Linear(5, 5, rng=0, dtype="float64"), _batch(5, 5))


def oblong(m: Any) -> GradientReport:
    return check_layer(m.Linear(6, 5, rng=0, dtype="float64"), _batch(4, 6))


def large(m: Any) -> GradientReport:
    return check_layer(m.Linear(100, 100, rng=0, dtype="float64"), _batch(8, 100))


def layer(name: str, *args: Any, dtype: type[np.floating[Any]] = np.float64) -> Check:
    def check(m: Any) -> GradientReport:
        made = getattr(m, name)(*args).initialize(rng=0, dtype=dtype)
        return check_layer(made, _batch(6, 5, dtype=dtype))

    return check


def batch_norm_inference(m: Any) -> GradientReport:
    made = m.BatchNorm(5).initialize(dtype="float64")
    made.running_mean, made.running_var = _batch(5), np.square(_batch(5)) + 0.5
    return check_layer(made, _batch(6, 5), train=False)


def flatten(m: Any) -> GradientReport:
    return check_layer(m.Flatten(), _batch(3, 2, 2))


def residual(m: Any) -> GradientReport:
    return check_layer(m.Residual(m.Linear(5, 5), rng=0).copy("float64"), _batch(6, 5))


def chain(m: Any) -> GradientReport:
    layers = Tanh(), Linear(5, 5), Tanh(), Linear(5, 5)
    return check_layer(m.Sequential(*layers, rng=0, dtype="float64"), _batch(6, 5))


def on_zeros(m: Any) -> GradientReport:
    x = _batch(6, 5)
    x[2, 3] = 0
    return check_layer(m.ReLU(), x)


def loss(made: Loss) -> GradientReport:
    return check_loss(made, 2 * _batch(6, 5), np.arange(6) % 5)


def smoothed(m: Any) -> GradientReport:
    return loss(m.SmoothedNLL(relumax(5.0), eps=0.01))


def reduced(m: Any) -> GradientReport:
    return loss(own(m))


def weighted(m: Any) -> GradientReport:
    made, weight = own(m), np.arange(6) % 4
    return loss(lambda logits, y: made(logits, y, weight))


def own(m: Any) -> Loss:
    """Make a loss by the base class of the module."""

    class Own(m.ReducedLoss):
        per_example = CrossEntropy().per_example

    made: Loss = Own()
    return made


def squared(m: Any) -> GradientReport:
    return check_loss(m.SquaredError(), _batch(6, 5), _batch(5, 6).T)


def several_labels(m: Any) -> GradientReport:
    return check_loss(m.BinaryCrossEntropy(), _batch(6, 5), np.arange(30).reshape(6, 5) % 3 % 2)


def regression(name: str, *args: float) -> Check:
    return lambda m: check_loss(getattr(m, name)(*args), 2 * _batch(6, 5), _batch(5, 6).T)


def poisson(m: Any) -> GradientReport:
    return check_loss(m.Poisson(), _batch(6, 5), np.abs(_batch(5, 6).T))


def quantiles(m: Any) -> GradientReport:
    return check_loss(m.Quantile((0.1, 0.5, 0.9)), _batch(6, 3), _batch(3, 6)[0])


def simplex(name: str, *args: float) -> Check:
    return lambda m: check_simplex_map(getattr(m, name)(*args), _batch(6, 5))


WRITTEN, STEP, FLIGHT = "written, not added", "after a step", "passes in flight"
UNMODIFIED, REPEAT, SKIP = "not modified", "repeatable", "input_grad=False"

LINEAR, DROPOUT = "layers.Linear", "layers.Dropout"
REDUCED, BCE = "losses.ReducedLoss", "losses.BinaryCrossEntropy"
NORMALIZED, BATCH = "layers._normalized", "layers.BatchNorm"
RELU, TANH, QUADRATIC = "activations.ReLU", "activations.Tanh", "activations.Quadratic"
DW, DB, DX = (
    "np.dot(x.T, dy, out=weight.grad)",
    "dy.sum(axis=0, out=bias.grad)",
    "np.dot(dy, weight.value.T) if input_grad else None",
)
STALE = 'dy @ self.__dict__.setdefault("_w", weight.value.copy()).T if input_grad else None'
MASKED = "dy * mask"
AGAIN = "dy * (self.rng.random(x.shape) >= self.p) / (1 - self.p)"
SCALED = "keep * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)"
DRAWN = "self.rng.random(x.shape, dtype=np.float32)"
CENTRED = "dh - dh.mean(axis=axis, keepdims=True) - along_h"
RUNNING = "(x - self.running_mean) * scale, scale"
INSIDE = "inside = p > 0"
LESS = "inside = p > np.where(p > 0, p, np.inf).min(axis=-1, keepdims=True)"
COUNT = "inside.sum(axis=-1, keepdims=True, dtype=p.dtype)"
SHARED = "self.y = y = np.tanh(x)\n        return y, lambda dy: dy * (1 - self.y * self.y)"
PULLED = "y = np.tanh(x)\n        return y, lambda dy: dy * (1 - y * y)"

drop, norm, relu, tanh = layer("Dropout", 0.4), layer("LayerNorm", 5), layer("ReLU"), layer("Tanh")
batch_norm, leaky, elu = layer("BatchNorm", 5), layer("LeakyReLU", 0.1), layer("ELU", 0.5)
softplus, silu, identity = layer("Softplus"), layer("SiLU"), layer("Identity")
gelu, gelu_tanh = layer("GELU"), layer("GELU", "tanh")
drop32 = layer("Dropout", 0.4, dtype=np.float32)
softmax_vjp, sparsemax_vjp = simplex("_Softmax"), simplex("_Sparsemax")
entmax_vjp, relumax_vjp = simplex("_Entmax15"), simplex("relumax", 1.5)
quadratic32 = layer("Quadratic", dtype=np.float32)

# fmt: off
FAULTS = (
    Fault("mean for sum in a bias gradient", LINEAR, DB, "dy.mean(axis=0, out=bias.grad)", linear, "bias"),
    Fault("wrong axis in a bias gradient", LINEAR, DB, "dy.sum(axis=1, out=bias.grad)", linear, "bias"),
    Fault("bias gradient forgotten", LINEAR, DB, "pass", linear, "bias"),
    Fault("weight gradient transposed", LINEAR, DW, "np.dot(dy.T, x, out=weight.grad)", linear, "weight"),
    Fault("weight gradient averaged over the batch", LINEAR, DW, "np.dot(x.T / len(x), dy, out=weight.grad)", linear, "weight"),
    Fault("1% error in one column", LINEAR, DW, f"{DW}; weight.grad[:, 3] *= 1.01", linear, "weight", index=(None, 3)),
    Fault("one wrong entry in 10,000", LINEAR, DW, f"{DW}; weight.grad[37, 59] *= 0.9", large, "weight", index=(37, 59)),
    Fault("one missing entry in 10,000", LINEAR, DW, f"{DW}; weight.grad[99, 0] = 0", large, "weight", index=(99, 0)),
    Fault("gradient added, not written", LINEAR, DW, "weight.grad += x.T @ dy", linear, "weight", WRITTEN),
    Fault("sign of the input's gradient", LINEAR, DX, f"-{DX}", linear, "input"),
    Fault("weight not transposed", LINEAR, DX, DX.replace(".T", ""), linear, "input"),
    Fault("stale parameter value", LINEAR, DX, STALE, linear, "input", STEP),
    Fault("input's gradient of the wrong shape", LINEAR, DX, DX.replace("dy, weight.value.T", "weight.value, dy.T"), oblong, "input", CONTRACT),
    Fault("parameter changed by backward", LINEAR, DW, f"{DW}; weight.value *= 0.999", linear, "weight", UNMODIFIED),
    Fault("input_grad=False skips a gradient", LINEAR, DB, f"{DB} if input_grad else None", linear, "bias", SKIP),
    Fault("dropout mask dropped", DROPOUT, MASKED, "dy", drop, "input"),
    Fault("dropout mask drawn again", DROPOUT, MASKED, AGAIN, drop, "input"),
    Fault("dropout scale missing in backward", DROPOUT, MASKED, "dy * keep", drop, "input"),
    Fault("backward consumes its mask", DROPOUT, MASKED, "np.multiply(mask, dy, out=mask)", drop, "input", REPEAT),
    Fault("float32 promoted in forward", DROPOUT, SCALED, "keep / (1 - self.p)", drop32, "output", "dtype"),
    Fault("global random state", DROPOUT, DRAWN, "np.random.random(x.shape)", drop, "output", REPEAT),
    Fault("float32 promoted in backward", QUADRATIC, "dy * (1 - 2 * x)", "dy * (1 - np.array([2.0]) * x)", quadratic32, "input", "dtype"),
    Fault("input changed in place", RELU, "np.maximum(x, 0)", "np.maximum(x, 0, out=x)", relu, "input", UNMODIFIED),
    Fault("cotangent changed in place", RELU, "dy * (y > 0)", "np.multiply(dy, y > 0, out=dy)", relu, "cotangent", UNMODIFIED),
    Fault("cotangent ignored", RELU, "dy * (y > 0)", "1.0 * (y > 0)", relu, "input"),
    Fault("slope of 5 at the kink", RELU, "dy * (y > 0)", "dy * np.where(x == 0, 5, x > 0)", on_zeros, "input", index=(2, 3)),
    Fault("derivative of another function", TANH, "1 - y * y", "1 - y", tanh, "input"),
    Fault("state shared by two passes", TANH, PULLED, SHARED, tanh, "input", FLIGHT),
    Fault("mean's term missing", NORMALIZED, CENTRED, "dh - along_h", norm, "input"),
    Fault("variance's term missing", NORMALIZED, CENTRED, "dh - dh.mean(axis=axis, keepdims=True)", norm, "input"),
    Fault("statistics over the wrong axis", NORMALIZED, CENTRED, CENTRED.replace("axis=axis", "axis=1 - axis"), norm, "input"),
    Fault("factor missing in a weight gradient", NORMALIZED, "(dy * h).sum(", "dy.sum(", norm, "weight"),
    Fault("factor missing that starts at one", NORMALIZED, "dh = dy * weight.value", "dh = dy", norm, "input", STEP),
    Fault("batch mean's term missing", NORMALIZED, CENTRED, "dh - along_h", batch_norm, "input"),
    Fault("batch variance's term missing", NORMALIZED, CENTRED, "dh - dh.mean(axis=axis, keepdims=True)", batch_norm, "input"),
    Fault("batch norm's mean over the features", NORMALIZED, CENTRED, CENTRED.replace("axis=axis", "axis=1 - axis"), batch_norm, "input"),
    Fault("batch norm in inference as in training", BATCH, "axis=0 if train and n else None", "axis=0 if n else None", batch_norm_inference, "input"),
    Fault("running variance forgotten in backward", NORMALIZED, "np.asarray(scale * dh)", "np.asarray(dh)", batch_norm_inference, "input"),
    Fault("running mean in place of the batch's", BATCH, "centred * scale, scale", RUNNING, batch_norm, "input"),
    Fault("slope forgotten in backward", "activations.LeakyReLU", "dy * factor", "dy * (x > 0)", leaky, "input"),
    Fault("alpha missing in ELU's derivative", "activations.ELU", "below + self.alpha", "below + 1", elu, "input"),
    Fault("Softplus's derivative mirrored", "activations.Softplus", "np.where(x >= 0, 1, e)", "np.where(x >= 0, e, 1)", softplus, "input"),
    Fault("SiLU's second term missing", "activations.SiLU", "dy * (s + y * (1 - s))", "dy * s", silu, "input"),
    Fault("GELU's density missing", "activations.GELU", "dy * (cdf + x * density)", "dy * cdf", gelu, "input"),
    Fault("GELU's factor 3 of a cube", "activations.GELU", "1 + 3 * 0.044715", "1 + 0.044715", gelu_tanh, "input"),
    Fault("shape not restored", "layers.Flatten", "dy.reshape(x.shape)", "dy", flatten, "input", CONTRACT),
    Fault("gradient of an identity averaged", "layers.Identity", "lambda dy: dy", "lambda dy: dy / len(dy)", identity, "input"),
    Fault("skip connection missing", "layers.Residual", "dy + dfx", "dfx", residual, "input"),
    Fault("input_grad=False stops too early", "layer.Sequential", "tape[: self._first : -1]", "tape[: self._first + 1 : -1]", chain, "1.weight", SKIP),
    Fault("gradient not averaged as the value is", REDUCED, "dlogits *= shares", "pass", reduced, "logits"),
    Fault("gradient without the weights", REDUCED, " scaled(dlogits, shares)", "dlogits * dlogits.dtype.type(shares.mean())", weighted, "logits"),
    Fault("weights not normalised in the value", REDUCED, "shares[used] @ values[used]", "np.asarray(weight)[used] @ values[used]", weighted, "logits"),
    Fault("minus sign missing", "losses.SmoothedNLL", "-weight / at", "weight / at", smoothed, "logits"),
    Fault("factor 2 of a square", "losses.SquaredError", "/ 2, error", "/ 2, 2 * error", squared, "logits"),
    Fault("label not subtracted", BCE, "(1 - y) * there - y * absent", "there", several_labels, "logits"),
    Fault("sum for mean over the labels", BCE, "dlogits * self._per_label(logits)", "dlogits", several_labels, "logits"),
    Fault("weight of the labels that are there lost", BCE, "- y * absent", "- absent", several_labels, "logits"),
    Fault("derivative of the square", "losses.AbsoluteError", "np.sign(error)", "error", regression("AbsoluteError"), "logits"),
    Fault("no limit to the gradient", "losses.Huber", "np.clip(error, -self.delta, self.delta)", "error", regression("Huber", 0.5), "logits"),
    Fault("limit forgotten beyond delta", "losses.Huber", "c * (size - c / 2)", "c * size / 2", regression("Huber", 0.5), "logits"),
    Fault("rate without the count", "losses.Poisson", "error - saved), error", "error - saved), rate", poisson, "logits"),
    Fault("slope with the sign of the other side", "losses.Quantile", "* error, slope", "* error, -slope", regression("Quantile", 0.3), "logits"),
    Fault("slope of the first quantile for all", "losses.Quantile", "* error, slope", "* error, slope[:, :1] + 0 * slope", quantiles, "logits"),
    Fault("softmax's second term missing", "maps._Softmax", "dp - _row_dots(dp, p)[:, None]", "dp", softmax_vjp, "z"),
    Fault("probabilities that do not sum to one", "maps._Softmax", "p /= p.sum(axis=-1, keepdims=True)\n        return p", "p *= 0.999 / p.sum(axis=-1, keepdims=True)\n        return p", softmax_vjp, "output", "on the simplex"),
    Fault("support off by one", "maps._Sparsemax", INSIDE, LESS, sparsemax_vjp, "z"),
    Fault("size of the support off by one", "maps._Sparsemax", COUNT, f"({COUNT} + 1)", sparsemax_vjp, "z"),
    Fault("square root missing", "maps._Entmax15", "r = np.sqrt(p)\n", "r = p\n", entmax_vjp, "z"),
    Fault("relumax's argmax term missing", "maps.relumax", "h[rows, m] -= h.sum(axis=-1)", "pass", relumax_vjp, "z"),
    Fault("relumax's factor 1/s missing", "maps.relumax", "* (largest / self.b)[:, None]", "* 1", relumax_vjp, "z"),
    Fault("jvp without its second term", "maps.relumax", "h -= p * h.sum(axis=-1, keepdims=True)", "pass", relumax_vjp, "z", "jvp"),
)
# fmt: on


def main() -> None:
    """Print a table of the faults; exit 1 if one is not caught."""
    outcomes = [try_fault(fault) for fault in FAULTS]
    rows = [("fault", "planted in", "caught", "the report's words")]
    rows += [(o.fault.what, o.fault.where, "yes" if o.right else "NO", o.named) for o in outcomes]
    print("\n".join(aligned(rows)))
    right = sum(o.right for o in outcomes)
    print(f"\n{right} of {len(FAULTS)} faults caught, each with the right tensor named")
    sys.exit(0 if right == len(FAULTS) else 1)


if __name__ == "__main__":
    main()
