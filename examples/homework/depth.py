"""Deep networks: remedies for depth, and records of why plain ones do not train."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from infinite_width import kernels, pixels

from homework import answers
from minidl.activations import ReLU
from minidl.callbacks import Callback, Run
from minidl.checks import Array
from minidl.dataset import Dataset
from minidl.grid.folder import kept
from minidl.grid.points import Result
from minidl.init import Init, he, uniform_fan_in, zeros
from minidl.layer import Layer, Sequential, write_gradients
from minidl.layers import BatchNorm, LayerNorm, Linear, Residual
from minidl.losses import Loss
from minidl.parameter import walk
from minidl.view.plots import Panel, figure, line_plot, save

PLAIN = "plain"
VANISH = 0.01
"""For the answers: a gradient that is this share of the last layer's has vanished."""


def remedy_name(init: str, norm: str, residual: bool) -> str:
    """Return the name of a network with these remedies, as ``he+layer+residual``."""
    words = [init] * (init != "pytorch") + [norm] * (norm != "none") + ["residual"] * residual
    return "+".join(words) or PLAIN


def initial_values(remedies: str) -> tuple[Init, Init]:
    """Return the initialisers of weight and bias: He's and zeros, or PyTorch's."""
    if "he" in remedies.split("+"):
        return he, zeros
    return uniform_fan_in, uniform_fan_in


def norm_layers(remedies: str, width: int) -> list[Layer]:
    """Return the normalisation between a linear layer and its activation, if there is one."""
    words = remedies.split("+")
    return [LayerNorm(width)] * ("layer" in words) + [BatchNorm(width)] * ("batch" in words)


def add_skip(layers: Sequence[Layer], remedies: str) -> list[Layer]:
    """Return the layers with a skip connection around them, if that is one of the remedies."""
    return [Residual(*layers)] if "residual" in remedies.split("+") else list(layers)


class Signals(Callback):
    """Records the gradient norm of each linear layer's weight, and the share of dead ReLU units.

    Before training and after each epoch, on the first ``n`` training examples. A unit is dead if
    its output is 0 for all of them.
    """

    def __init__(self, dataset: Dataset, loss: Loss, n: int = 1000) -> None:
        self.x, self.y = dataset.train.rows(slice(n)), dataset.train.y[:n]
        self.loss = loss
        self.gradients: list[list[float]] = []
        self.dead: list[float] = []

    def on_start(self, run: Run) -> None:
        self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        model = run.model
        if not isinstance(model, Sequential):
            raise ValueError("--why takes no --parity")
        x = self.x.astype(model.dtype)
        logits, backward = model.forward(x)
        write_gradients(model, backward, self.loss(logits, self.y)[1])
        linear = [layer for layer in walk(model) if isinstance(layer, Linear)]
        self.gradients.append([float(np.linalg.norm(layer.weight.grad)) for layer in linear])
        found: list[Array] = []
        _relu_outputs(model.layers, x, found)
        dead = [(y == 0).all(axis=0) for y in found]
        self.dead.append(float(np.mean(np.concatenate(dead))) if dead else 0.0)


def _relu_outputs(layers: Sequence[Layer], x: Array, found: list[Array]) -> Array:
    """Append the output of each ReLU to ``found``; return the output of all layers."""
    for layer in layers:
        if isinstance(layer, Residual):
            x = x + _relu_outputs(layer.inner.layers, x, found)
        else:
            x = layer(x)
            if isinstance(layer, ReLU):
                found.append(x)
    return x


def draw_signals(path: Path, runs: Mapping[int, Mapping[str, Any]], title: str) -> None:
    """Draw the gradient norms and the share of dead units; ``runs`` is by the number of layers."""
    picture = figure(2.9 * len(runs) + 1, 5.4)
    grid = picture.subplots(2, len(runs), squeeze=False, sharex=True, sharey="row")
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    for column, (layers, values) in enumerate(runs.items()):
        norms = np.array(values["gradients"])
        for k, curve in enumerate(norms.T):
            colour = colormaps["viridis"](0.95 * k / max(norms.shape[1] - 1, 1))
            grid[0, column].plot(np.maximum(curve, 1e-12), color=colour)
        grid[0, column].set(yscale="log", title=f"{layers} hidden layer{'s' * (layers > 1)}")
        grid[1, column].plot(values["dead"], color="black")
        accuracy = values["best_valid_accuracy"]
        grid[1, column].set(xlabel="epoch", ylim=(-0.05, 1.05))
        grid[1, column].set_title(f"best validation accuracy {accuracy:.3f}", fontsize=9)
        for axes in grid[:, column]:
            axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("gradient norm of a layer's weight")
    grid[1, 0].set_ylabel("share of dead ReLU units")
    bar = picture.colorbar(ScalarMappable(cmap="viridis"), ax=list(grid[0]), ticks=[0, 1])
    bar.set_ticklabels(["first layer", "last layer"])
    picture.suptitle(title)
    words = [
        f"{layers} hidden layers: first layer {values['gradients'][-1][0]:.1g}, last layer "
        f"{values['gradients'][-1][-1]:.1g}, dead {values['dead'][-1]:.2f}"
        for layers, values in runs.items()
    ]
    description = (
        f"{title}. Gradient norm of each layer's weight, and share of dead ReLU units, against the "
        f"epoch. At the last epoch: {'; '.join(words)}."
    )
    save(picture, path, description)


TAKEN = ("optimizer", "activation", "epochs", "batch_size")
"""The settings that a run takes from a finished one."""


def best_setting(folder: Path, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the best finished run of a width in the folder of ``q2_width.py``, and its settings.

    The best one has the highest validation accuracy, the first of equals.
    """
    import json

    try:
        record = json.loads((folder / "grid.json").read_text(encoding="utf-8"))["settings"]
        settings = {**record["settings"], "data": record["data"]}
        missing = [name for name in TAKEN if name not in settings]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{folder}: expected the folder of a run of q2_width.py ({error!r})"
        ) from error
    if missing:
        raise ValueError(f"{folder / 'grid.json'}: lacks {', '.join(missing)}")
    runs = [r for r in kept(folder).values() if r.point.get("width") == width]
    if not runs:
        raise ValueError(f"{folder}: no finished run of width {width}")
    best = max(runs, key=lambda r: float(r.values["best_valid_accuracy"]))
    return best.point, settings


def take_setting(args: argparse.Namespace) -> None:
    """Take the best setting of the first width from the folder ``--from`` and print it."""
    point, settings = best_setting(args.source, args.widths[0])
    args.learning_rates, args.dropouts = [point["learning_rate"]], [point["dropout"]]
    args.l2s = [point["l2"]]
    for name in TAKEN:
        setattr(args, name, settings[name])
    words = {**point, **{k: settings[k] for k in ("optimizer", "activation", "epochs")}}
    print(f"from {args.source}: " + ", ".join(f"{k} {v}" for k, v in words.items()))
    if settings["data"] != args.data:
        print(f"  (trained there on {settings['data']})")


def draw_depths(dataset: Dataset, results: Sequence[Result], out: Path) -> None:
    """Draw training and validation accuracy against depth, for each kind of network."""
    kinds: dict[str, list[Result]] = {}
    for r in results:
        if r.error is None:
            words = [str(r.point[k]) for k in ("network", "optimizer") if k in r.point]
            kinds.setdefault(", ".join(words), []).append(r)
    curves: dict[str, Any] = {}
    for name, runs in kinds.items():
        depths = [r.point["layers"] for r in runs]
        curves[f"{name}: validation"] = depths, [r.values["best_valid_accuracy"] for r in runs]
        training = [r.values["final_train_accuracy"] for r in runs]
        curves[f"{name}: training, last epoch"] = depths, training
    ticks = sorted({r.point["layers"] for r in results})
    dashed = [label for label in curves if label.endswith("last epoch")]
    label = "accuracy (share of examples)"
    title = dataset.title
    panel = Panel(curves, "depth (hidden layers)", label, xticks=ticks, dashed=dashed, pairs=True)
    line_plot(out / "accuracy-by-layers", panel, title=title)


def draw_reasons(dataset: Dataset, results: Sequence[Result], out: Path) -> dict[str, list[str]]:
    """Draw the records of --why, a picture for each kind of network and optimizer, and say them."""
    found = {}
    for network in dict.fromkeys(r.point["network"] for r in results):
        for optimizer in dict.fromkeys(r.point["optimizer"] for r in results):
            kind = network, optimizer
            runs = {
                r.point["layers"]: r.values
                for r in results
                if r.error is None and (r.point["network"], r.point["optimizer"]) == kind
            }
            name = f"why-{network}-{optimizer}".replace(" ", "-")
            if runs:
                title = f"{dataset.title}: {network} networks, {optimizer}"
                draw_signals(out / f"{name}.png", runs, title)
                found[name] = [
                    f"{network}, {optimizer}: "
                    + answers.gradients(v["gradients"][-1], v["dead"][-1], vanish=VANISH)
                    for v in runs.values()
                ]
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
    starts: dict[str, list[float]] = {
        "PyTorch's initial values": [
            flatness(x, n, 1 / 3, [first] + [rest] * (n - 1)) for n in layers
        ],
        "He's": [flatness(x, n, 2, 0) for n in layers],
    }
    ylabel = "mean of 1 - cos t of two examples, in the kernel of infinite width"
    for name, values in starts.items():
        print(f"{ylabel}, {name}: " + ", ".join(f"{value:.2g}" for value in values))
    curves = {name: (layers, values) for name, values in starts.items()}
    title = f"{dataset.title}\nhow much of a difference the last layer sees"
    panel = Panel(curves, "depth (hidden layers)", "mean of 1 - cos t", title, layers, ylog=True)
    line_plot(out / "flatness", panel)
