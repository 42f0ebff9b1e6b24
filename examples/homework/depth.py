"""Deep networks: records of why plain ones do not train, and settings taken from Question 2.2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from homework import answers
from homework.figures import Trace
from homework.kernels import kernels, pixels
from homework.published import in_words
from homework.report import best_of
from minidl import Dataset, Layer, Linear, Loss, ReLU, Residual, Sequential
from minidl.checks import Array
from minidl.files import from_json
from minidl.grid.folder import kept
from minidl.grid.points import Result
from minidl.layer import write_gradients
from minidl.parameter import walk
from minidl.view.plots import Panel, line_plot

VANISH = 0.01
"""For the answers: a gradient that is this share of the last layer's has vanished."""


def signals(dataset: Dataset, loss: Loss, n: int = 1000) -> Trace:
    """Record the gradient norm of each linear layer's weight, and the share of dead ReLU units.

    On the first ``n`` training examples. A unit is dead if its output is 0 for all of them.
    """
    split, y = dataset.train.rows(slice(n)), dataset.train.y[:n]

    def measure(model: Layer) -> dict[str, Any]:
        x, found = split.astype(model.dtype), list[Array]()
        logits, backward = model.forward(x)
        write_gradients(model, backward, loss(logits, y)[1])
        weights = [layer.weight for layer in walk(model) if isinstance(layer, Linear)]
        _relu_outputs(model, x, found)
        dead = np.concatenate([(output == 0).all(axis=0) for output in found or [x]])
        gradients = [float(np.linalg.norm(weight.grad)) for weight in weights]
        return {"gradients": gradients, "dead": float(np.mean(dead)) if found else 0.0}

    return Trace(measure)


def _relu_outputs(layer: Layer, x: Array, found: list[Array]) -> Array:
    """Append the output of each ReLU to ``found``; return the output of the layer."""
    if isinstance(layer, Residual):
        return x + _relu_outputs(layer.inner, x, found)
    if isinstance(layer, Sequential):
        for one in layer.layers:
            x = _relu_outputs(one, x, found)
        return x
    y = layer(x)
    if isinstance(layer, ReLU):
        found.append(y)
    return y


def take_setting(args: argparse.Namespace) -> None:
    """Take the setting of the best run of the first width in the folder ``--from``; print it."""
    folder, width = args.source, args.widths[0]
    try:
        record = from_json((folder / "grid.json").read_bytes())["settings"]
        names = "optimizer", "activation", "epochs", "batch_size"
        taken = {name: record["settings"]["arguments"][name] for name in names}
        data = record["data"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        text = f"{folder}: expected the folder of a run of q2_width.py ({error!r})"
        raise ValueError(text) from error
    best = best_of([r for r in kept(folder).values() if r.point.get("width") == width])
    if best is None:
        raise ValueError(f"{folder}: no finished run of width {width}")
    axes = {f"{axis}s": [best.point[axis]] for axis in ("learning_rate", "dropout", "l2")}
    vars(args).update(axes | taken)
    print(f"from {folder}: {in_words({**best.point, **taken})}; trained there on {data}")


def by_kind(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the finished runs of each kind of network and optimizer, in words."""
    kinds: dict[str, list[Result]] = {}
    for r in results:
        if r.error is None:
            words = [str(r.point[k]) for k in ("network", "optimizer") if k in r.point]
            kinds.setdefault(", ".join(words), []).append(r)
    return kinds


def draw_reasons(dataset: Dataset, results: Sequence[Result], out: Path) -> dict[str, list[str]]:
    """Draw the records of --why, a picture for each kind of network and optimizer, and say them."""
    found = {}
    for kind, runs in by_kind(results).items():
        network, _, optimizer = kind.partition(", ")
        name = f"why-{network}-{optimizer}".replace(" ", "-")
        least, dead = dict[str, Any](), dict[str, Any]()
        for r in runs:
            label = f"{r.point['layers']} hidden, valid {r.values['best_valid']:.3f}"
            norms = np.array(r.values["gradients"])
            ratios = (norms / np.maximum(norms[:, -1:], 1e-30)).min(axis=1)
            epochs = range(len(norms))
            least[label], dead[label] = (epochs, ratios), (epochs, r.values["dead"])
        label = "smallest gradient / the last layer's"
        panels = (
            Panel(least, "epoch", label, ylog=True),
            Panel(dead, "epoch", "share of dead units"),
        )
        line_plot(out / f"{name}.png", *panels, title=f"{dataset.title}: {kind}")
        ends = [(r.values["gradients"][-1], r.values["dead"][-1]) for r in runs]
        found[name] = [f"{kind}: " + answers.gradients(*end, vanish=VANISH) for end in ends]
    return found


def flatness(x: Array, layers: int, sw2: float, sb2: float | Sequence[float]) -> float:
    """Return the mean of 1 - cos t over pairs of rows, t the angle in the last hidden layer."""
    k = kernels(x, x, layers, sw2, sb2)[0]
    length = np.sqrt(np.maximum(k.diagonal(), 1e-300))  # 0 for a blank row without biases
    return float(np.mean((1 - k / np.outer(length, length))[np.triu_indices(len(x), 1)]))


def draw_flatness(dataset: Dataset, layers: Sequence[int], width: int, out: Path) -> None:
    """Print and draw how much of the difference of two examples the initial values keep."""
    x = pixels(dataset.sample(train=500).train)
    first, rest = 1 / (3 * dataset.features), 1 / (3 * width)
    pytorch = [flatness(x, n, 1 / 3, [first] + [rest] * (n - 1)) for n in layers]
    starts = {"PyTorch's initial values": pytorch, "He's": [flatness(x, n, 2, 0) for n in layers]}
    label = "mean of 1 - cos t"
    for name, values in starts.items():
        shown = ", ".join(f"{value:.2g}" for value in values)
        print(f"{label} of two examples, in the kernel of infinite width, {name}: {shown}")
    curves = {name: (layers, values) for name, values in starts.items()}
    title = f"{dataset.title}\nhow much of a difference the last layer sees"
    line_plot(
        out / "flatness", Panel(curves, "depth (hidden layers)", label, title, layers, ylog=True)
    )
