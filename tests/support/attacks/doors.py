"""Wrong calls of every public callable: a right call with one argument replaced by a wrong value.

Run as a program it prints the table of outcomes, and with ``--obscure`` the calls behind them:
``PYTHONPATH=.:tests/support python tests/support/attacks/doors.py [--calls 4000] [--seed 0]``.

A clear error is a ValueError or TypeError, raised by minidl, or by scikit-learn's own checks in an
estimator, that names the owner or the argument or what was expected. A
call that returns is not counted as wrong: the value may be a right one (a list for an array).
"""

import argparse
import contextlib
import io
import os
import random
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import minidl
from minidl import init, metrics
from minidl.checks import require
from minidl.view import plots
from minidl.view.tables import Table

PACKAGE = str(Path(minidl.__file__).parent)


class Odd:
    """An object of a user that is of no use anywhere."""

    def __repr__(self):
        return "Odd()"


WRONG = (
    None, -1, 0, 2.5, "abc", "0.1", "", b"x", True, float("nan"), float("inf"), -0.5, 10**400, 1j, [], [1, 2],
    (0.5,), {"a": 1}, {1, 2}, Odd(), Odd, int, len, np.zeros(3), np.array("x"), np.array([None]),
    np.zeros((2, 2), complex), np.float64(0.1), range(3), minidl.Cosine, minidl.Linear, minidl.ReLU(),
    minidl.softmax, minidl.CrossEntropy(), [minidl.ReLU()], Path("no/such/file"), (x for x in "ab"),
)  # fmt: skip


def subjects():
    """Yield a callable, and the arguments of a right call by name; positional ones in ``args``."""
    x, y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3

    def model():
        return minidl.Sequential(minidl.Linear(4, 3), rng=0, dtype="float64")

    def data():
        return minidl.Dataset((x, y), (x, y), (x, y))

    loss = minidl.CrossEntropy()
    logits = np.zeros((12, 3))
    number = {"outputs": x[:, :1], "y": x[:, 1:2]}
    yield minidl.Linear, {"in_features": 4, "out_features": 3, "bias": True, "weight_init": init.he, "bias_init": init.zeros, "rng": 0, "dtype": "float32"}  # fmt: skip
    yield minidl.Dropout, {"p": 0.5, "rng": 0}
    for layer in (minidl.BatchNorm, minidl.LayerNorm):
        yield layer, {"features": 4, "eps": 1e-5, "dtype": "float32"}
    yield minidl.BatchNorm, {"features": 4, "momentum": 0.1}
    yield minidl.Sequential, {"args": (minidl.Linear(4, 3), minidl.ReLU()), "rng": 0, "dtype": "float32"}  # fmt: skip
    yield minidl.Residual, {"args": (minidl.Linear(4, 4),), "rng": 0}
    yield minidl.ELU, {"alpha": 1.0}
    yield minidl.GELU, {"approximate": "none"}
    yield minidl.LeakyReLU, {"slope": 0.01}
    yield minidl.Simplex, {"map": minidl.softmax, "axis": -1}
    for layer in (minidl.Softmax, minidl.Sparsemax, minidl.Entmax15):
        yield layer, {"axis": -1}
    yield minidl.Relumax, {"b": 1.0, "axis": -1}
    yield minidl.relumax, {"b": 1.0}
    yield minidl.Parameter, {"value": np.zeros(3)}
    for kind in (minidl.ReLU, minidl.GELU, minidl.ELU, minidl.Tanh, minidl.Sigmoid, minidl.SiLU, minidl.Softplus, minidl.Quadratic, minidl.LeakyReLU, minidl.Softmax):  # fmt: skip
        yield kind(), {"args": (x,)}
        yield kind().forward, {"args": (x,)}
    for made in (minidl.Linear(4, 3, rng=0, dtype="float64"), minidl.LayerNorm(4, dtype="float64"), model()):  # fmt: skip
        yield made, {"args": (x,)}
        yield made.forward, {"args": (x,)}
    for map in (minidl.softmax, minidl.sparsemax, minidl.entmax15, minidl.relumax(1.0)):
        yield map, {"z": x, "axis": -1}
        yield map.jacobian, {"args": (x[0],)}
    for kind in (minidl.AbsoluteError, minidl.BinaryCrossEntropy, minidl.BinaryLogistic, minidl.CrossEntropy, minidl.Perceptron, minidl.SquaredError):  # fmt: skip
        yield kind, {"reduction": "mean"}
    yield minidl.Huber, {"delta": 1.0, "reduction": "mean"}
    yield minidl.Quantile, {"q": 0.5, "reduction": "mean"}
    yield minidl.FenchelYoung, {"map": minidl.sparsemax, "reduction": "mean"}
    yield minidl.SmoothedNLL, {"map": minidl.sparsemax, "eps": 0.01, "reduction": "mean"}
    for made in (loss, minidl.FenchelYoung(minidl.sparsemax), minidl.Perceptron()):
        yield made, {"logits": logits, "y": y}
    for made in (minidl.SquaredError(), minidl.AbsoluteError(), minidl.Huber()):
        yield made, {"logits": x[:, :1], "y": x[:, 1:2]}
    yield minidl.SGD, {"model": model, "lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": True, "weight_decay": 0.1, "decay_biases": True, "clip_norm": 1.0}  # fmt: skip
    for kind in (minidl.Adam, minidl.AdamW):
        yield kind, {"model": model, "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "decay_biases": True, "clip_norm": 1.0}  # fmt: skip
    yield minidl.Cosine, {"lr": 0.1, "steps": 10, "final": 0.0}
    yield minidl.OneCycle, {"lr": 0.1, "steps": 10, "pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}  # fmt: skip
    yield minidl.StepDecay, {"lr": 0.1, "every": 3, "factor": 0.1}
    yield minidl.WarmUp, {"lr": 0.1, "steps": 10}
    yield init.normal, {"mean": 0.0, "std": 1.0}
    yield minidl.Dataset, {"train": (x, y), "valid": (x, y), "test": (x, y), "name": "d", "classes": 3, "class_names": np.array(["a", "b", "c"]), "scale": None}  # fmt: skip
    yield minidl.Standardize().fit, {"dataset": data}
    yield minidl.Standardize().fit_transform, {"dataset": data}
    yield minidl.PCA, {"n_components": 2}
    yield minidl.AveragePool, {"size": 2, "shape": (2, 2)}
    yield minidl.Predictor, {"model": model, "features": (), "loss": loss, "dataset": data}
    yield minidl.evaluate, {"model": model, "data": (x, y), "loss": loss, "metrics": {}}
    yield minidl.outputs, {"model": model, "x": x}
    yield minidl.probabilities, {"model": model, "x": x, "loss": loss}
    for metric in (metrics.accuracy, metrics.mean_accuracy):
        yield metric, {"outputs": logits, "y": y, "weight": np.ones(12)}
    yield metrics.r2, {**number, "weight": np.ones(12)}
    yield metrics.sign_accuracy, {"outputs": x[:, :1], "y": np.sign(x[:, 1:2])}
    yield metrics.exact_match, {"outputs": x, "y": (x > 0) * 1}
    yield minidl.save, {"path": "m.npz", "model": model}
    yield minidl.load, {"path": "good.npz", "layers": (), "rng": 0}
    yield minidl.load_dataset, {"source": "letters.npz"}
    yield minidl.load_letters, {"train": 30, "valid": 10, "test": 10, "seed": 0}
    yield minidl.Checkpoint, {"path": "c.npz", "every": 1, "resume": False}
    yield minidl.register_layer, {"cls": minidl.Linear}
    yield minidl.grid.Grid, {"a": [1, 2]}
    yield minidl.grid.run, {"grid": minidl.grid.Grid(a=[1]), "train": lambda a: {"b": a}, "out": "g", "jobs": 1, "settings": {}}  # fmt: skip
    yield minidl.testing.check_layer, {"layer": model, "x": x, "train": True, "rng": 0}
    yield minidl.testing.check_loss, {"loss": loss, "logits": logits, "y": y, "rng": 0}
    yield minidl.testing.check_simplex_map, {"map": minidl.softmax, "z": x, "axis": -1, "rng": 0}
    yield minidl.testing.check_function, {"f": np.square, "vjp": lambda x, dy: 2 * x * dy, "x": x, "rng": 0}  # fmt: skip
    yield minidl.testing.Options, {"rng": 0, "eps": 1e-5, "rtol": 1e-6, "atol": 1e-6, "locate_seconds": 5.0}  # fmt: skip
    yield minidl.TorchRandom, {"seed": 0}
    yield minidl.EarlyStopping, {"patience": 5, "min_delta": 0.0}
    yield minidl.ReduceOnPlateau, {"factor": 0.1, "patience": 5, "min_delta": 0.0}
    yield minidl.History, {"monitor": "valid_loss", "mode": "min"}
    yield minidl.compounding, {"n": 5, "rng": np.random.default_rng(0)}
    yield minidl.OnlineRun, {"model": model, "lr": 0.1, "weight_decay": 0.1, "l1": 0.0}
    yield _fit, {"model": model, "dataset": data, "loss": loss, "optimizer": minidl.SGD, "epochs": 1, "batch_size": 4, "rng": 0, "metrics": {}, "monitor": "valid_loss", "mode": "min", "callbacks": ()}  # fmt: skip
    yield minidl.fit_online, {"model": model, "dataset": data, "loss": loss, "lr": 0.1, "weight_decay": 0.0, "epochs": 1, "block_size": 4, "rng": 0, "metrics": {}}  # fmt: skip
    yield minidl.fit_side_by_side, {"runs": (), "dataset": data, "loss": loss, "epochs": 1, "block_size": 4, "rng": 0}  # fmt: skip
    yield from _wings(model, data, loss, x, y)
    if _has("sklearn"):
        for kind in (minidl.sklearn.MLPClassifier, minidl.sklearn.MLPRegressor):
            yield kind(max_iter=1).fit, {"X": x, "y": y}
        for name, value in {"hidden_layer_sizes": (3,), "activation": "relu", "max_iter": 1, "tol": 1e-4, "learning_rate_init": 0.1, "alpha": 0.1, "batch_size": 4}.items():  # fmt: skip
            yield _classify, {name: value}


def _wings(model, data, loss, x, y):
    """Yield what parity, the ONNX export, plots and tables have."""
    made = model()
    optimizer = minidl.SGD(made, 0.1)
    if _has("torch"):
        parity, torch = minidl.parity, require("torch", "parity")
        require("torch._dynamo", "parity")  # the first optimizer imports it: not in its 5 seconds
        module = torch.nn.Sequential(torch.nn.Linear(4, 3))
        parts = {"model": made, "loss": loss, "optimizer": optimizer}
        yield parity.compare, {**parts, "batches": [(x, y)], "dtype": "float64", "tolerance": lambda step: 1.0, "title": "t"}  # fmt: skip
        yield parity.torch_counterparts, parts
        yield parity.fit, {**parts, "dataset": data, "epochs": 1, "batch_size": 4, "rng": 0}
        yield parity.to_torch, {"model": model, "same_masks": False}
        yield parity.from_torch, {"module": module, "rng": 0}
    if _has("onnx"):
        yield minidl.onnx.export, {"path": "m.onnx", "model": model}
        yield minidl.onnx.to_onnx, {"model": model}
    if _has("matplotlib"):
        history = minidl.fit(made, data(), loss, optimizer, epochs=1, rng=0)
        panel = {"curves": {"a": ([0, 1], [1, 2])}, "xlabel": "x", "ylabel": "y"}
        yield history.plot, {"path": "h.png", "title": "t", "loss_unit": "nats"}
        yield history.to_csv, {"path": "h.csv"}
        yield history.column, {"name": "train_loss"}
        yield _line_plot, {"path": "l.png", **panel, "title": "t", "ylog": False, "dashed": ()}
        yield Table(["a", "b"]).write, {"stem": "table"}
    if _has("safetensors"):
        yield minidl.safetensors.save, {"path": "m.safetensors", "model": model}
        yield minidl.safetensors.load, {"path": "good.safetensors", "model": model}


def _line_plot(path, **panel):
    plots.line_plot(path, plots.Panel(**panel))


def _fit(model, optimizer, **options):
    """``fit``, whose optimizer needs the model."""
    made = optimizer(model, 0.1) if optimizer is minidl.SGD and isinstance(model, minidl.Layer) else optimizer  # fmt: skip
    return minidl.fit(model, optimizer=made, **options)


def _classify(**options):
    x, y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
    return minidl.sklearn.MLPClassifier(**{"max_iter": 1, **options}).fit(x, y)


def _has(module):
    with contextlib.suppress(ImportError):
        return bool(require(module, module))


def calls():
    """Yield owner, argument, wrong value and the call itself."""
    for function, right in subjects():
        right = dict(right)
        args = right.pop("args", ())
        names = [*range(len(args)), *right]
        owner = getattr(function, "__qualname__", None) or type(function).__name__
        for name in names:
            for wrong in WRONG:
                yield owner, name, wrong, (function, name, wrong, args, right)


def fresh(value):
    """Return a new model or data set where the table has a function that makes one."""
    return value() if getattr(value, "__name__", "") in ("model", "data") else value


def outcome(owner, name, wrong, call):
    """Return what came of a call, and its text."""
    function, _, _, args, right = call
    args = tuple(wrong if i == name else fresh(v) for i, v in enumerate(args))
    options = {k: wrong if k == name else fresh(v) for k, v in right.items()}
    silent = io.StringIO()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(5)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent):
            warnings.simplefilter("ignore")
            function(*args, **options)
    except TooLongError:
        return "more than 5 s", ""
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        words = {*owner.split("."), str(name), "expected"}
        named = any(word.lower() in text.lower() for word in words if len(word) > 0)
        kinds = (ValueError, TypeError, OSError, ImportError)
        wrong = args[name] if isinstance(name, int) else options[name]
        named = named or (isinstance(wrong, (str, Path)) and str(wrong) in text)  # of a file
        inside = last.startswith(PACKAGE) or "/sklearn/" in last or isinstance(error, OSError)
        good = isinstance(error, kinds) and inside and named
        return ("clear" if good else "obscure"), text
    finally:
        signal.alarm(0)
    return "returned", ""


class TooLongError(BaseException):
    """Not caught by the code under attack."""


def _too_long(*_):
    raise TooLongError


def attack(folder, limit, seed=0):
    """Return the counts of outcomes over a sample of the calls, and the obscure ones."""
    found, obscure, before = Counter(), [], Path.cwd()
    os.chdir(folder)
    try:
        good = minidl.Sequential(minidl.Linear(4, 3), rng=0, dtype="float64")
        minidl.save("good.npz", good)
        if _has("safetensors"):
            minidl.safetensors.save("good.safetensors", good)
        x = np.zeros((12, 4), np.uint8)
        np.savez("letters.npz", x_train=x, y_train=np.arange(12) % 3, x_test=x, y_test=np.arange(12) % 3)  # fmt: skip
        todo = list(calls())
        for owner, name, wrong, call in random.Random(seed).sample(todo, min(limit, len(todo))):
            kind, text = outcome(owner, name, wrong, call)
            found[kind] += 1
            if kind in ("obscure", "more than 5 s"):
                obscure.append(f"{owner}({name}={wrong!r:.40}): {text:.160}")
    finally:
        os.chdir(before)
    return found, obscure


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--obscure", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, obscure = attack(folder, options.calls, options.seed)
    print(f"| outcome | calls of {found.total():,} | share |\n| --- | --- | --- |")
    for kind, n in found.most_common():
        print(f"| {kind} | {n:,} | {n / found.total():.1%} |")
    if options.obscure:
        print(*sorted(obscure), sep="\n")
