"""Deep networks: remedies for depth, and records of why plain ones do not train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.activations import ReLU
from minidl.callbacks import Callback, Run
from minidl.checks import Array
from minidl.dataset import Dataset
from minidl.grid.folder import kept
from minidl.init import Init, he, uniform_fan_in, zeros
from minidl.layer import Layer, Sequential, write_gradients
from minidl.layers import BatchNorm, LayerNorm, Linear, Residual
from minidl.losses import Loss
from minidl.parameter import walk
from minidl.view.plots import figure, save

PLAIN = "plain"


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
            raise ValueError("--why needs --backend numpy")
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
