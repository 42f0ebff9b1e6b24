"""Figures of trained models and of losses, by number and by picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Callback, Dataset, History, Layer, Loss, Split, evaluate
from minidl.callbacks import Run
from minidl.checks import Array
from minidl.losses import hessian
from minidl.view.plots import Panel, figure, save

WORDS = {
    "best_valid": "validation accuracy, best epoch",
    "selected_epoch": "best epoch",
    "train": "training accuracy, best epoch",
    "test": "test accuracy, best epoch",
    "last_train": "training accuracy, last epoch",
    "last_test": "test accuracy, last epoch",
}
"""The figures of a run by their names, the first of which are those of the course."""
HEADINGS = ["valid", "epoch", "train at best", "test at best", "train at last", "test at last"]
"""Of the columns with these figures."""


def over_epochs(columns: Mapping[str, Sequence[Any]], ylabel: str, **options: Any) -> Panel:
    """Return a panel of columns with one value an epoch, from the epoch ``first`` (0) on."""
    first = options.pop("first", 0)
    curves = {name: (range(first, len(y)), y[first:]) for name, y in columns.items()}
    return Panel(curves, "epoch", ylabel, **options)


class Trace(Callback):
    """Records what a function of the model returns by name, before training and each epoch."""

    def __init__(self, measure: Callable[[Layer], Mapping[str, Any]]) -> None:
        self.measure = measure
        self.columns: dict[str, list[Any]] = {}

    def on_start(self, run: Run) -> None:
        if not run.history.records:
            self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        for name, value in self.measure(run.model).items():
            self.columns.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        return {name: np.array(column) for name, column in self.columns.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.columns = {name: list(column) for name, column in state.items()}


class TestAccuracy(Trace):
    """Records the test accuracy before training and after each epoch."""

    def __init__(self, dataset: Dataset, loss: Loss) -> None:
        split = dataset.splits["test"]
        super().__init__(lambda model: {"values": evaluate(model, split, loss)["accuracy"]})

    @property
    def values(self) -> list[float]:
        """The test accuracies, one an epoch."""
        return self.columns.get("values", [])


def both_epochs(history: History, test: Sequence[float]) -> dict[str, Any]:
    """Return the figures of ``WORDS``; ``test`` holds the test accuracies of all epochs."""
    best, last = history.best, history[-1]
    found = {"best_valid": best.valid_accuracy, "selected_epoch": best.epoch}
    found |= {"train": best.train_accuracy, "test": test[best.epoch]}
    return found | {"last_train": last.train_accuracy, "last_test": test[last.epoch]}


def differences(loss: Any, part: int, z: Array, y: Array, steps: Array) -> Array:
    """Return derivatives of the loss (part 0) or its gradient (1), by differences to both sides."""
    pairs = ((loss(z + 1e-5 * step, y)[part], loss(z - 1e-5 * step, y)[part]) for step in steps)
    return np.array([(above - below) / (2 * 1e-5) for above, below in pairs])


def check_hessian(loss: Any, z: Array, y: Array) -> tuple[float, float, float, float]:
    """Return the errors of gradient and Hessian, and the Hessian's extreme eigenvalues."""
    matrices, few, labels = hessian(loss, z, y), z[:50], y[:50]
    slopes = differences(loss, 0, few, labels, np.eye(few.size).reshape(-1, *few.shape))
    rows = np.moveaxis(differences(loss, 1, z, y, np.eye(z.shape[1])), 0, -1)
    first = np.abs(loss(few, labels)[1] - slopes.reshape(few.shape)).max()
    eigenvalues = np.linalg.eigvalsh(matrices)
    return first, np.abs(matrices - rows).max(), eigenvalues.min(), eigenvalues.max()


def draw_regions(path: Path, networks: Mapping[str, Layer], split: Split) -> None:
    """Draw the class that each network predicts in the plane, and examples of two classes."""
    u, v = np.meshgrid(*[np.linspace(-3, 3, 161)] * 2)
    picture = figure(4.0 * len(networks), 4.4)
    for axes, (name, network) in zip(
        picture.subplots(1, len(networks)), networks.items(), strict=True
    ):
        shown = network(np.stack([u.ravel(), v.ravel()], axis=1)).argmax(axis=1).reshape(u.shape)
        axes.contourf(u, v, shown, levels=[-0.5, 0.5, 1.5], colors=["#c6dbef", "#fdd0a2"])
        axes.scatter(*split.x.T, c=np.array(["tab:blue", "tab:orange"])[split.y], s=3)
        axes.set(xlabel="x1", ylabel="x2", title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    save(
        picture, path, f"The class that each network predicts in the plane: {', '.join(networks)}."
    )


def draw_segment(path: Path, f: Callable[[Array], float], a: Array, b: Array, title: str) -> None:
    """Draw a function of the plane as a surface, its curve from a to b, and the chord below it."""
    limit, points = float(np.abs([a, b]).max()) + 0.5, np.linspace(a, b, 60)
    u, v = np.meshgrid(*[np.linspace(-limit, limit, 81)] * 2)
    heights = np.array([f(p) for p in np.stack([u.ravel(), v.ravel()], axis=1)]).reshape(u.shape)
    picture = figure(6.4, 5.2)
    axes = picture.add_subplot(projection="3d", computed_zorder=False)
    axes.plot_surface(u, v, heights, cmap="viridis", alpha=0.6, linewidth=0)
    axes.plot(*points.T, [f(p) for p in points], "r", label="loss along a segment")
    axes.plot(*points.T, np.linspace(f(a), f(b), 60), "k--", label="chord between its ends")
    axes.set(xlabel="x1", ylabel="x2", zlabel="loss (nats)", title=title)
    axes.view_init(elev=50, azim=-20)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    save(picture, path, f"{title}. The loss rises above the chord between two points.")
