"""The runs on landscapes, their tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from homework.figures import over_epochs
from homework.scenes import CLASSES
from minidl import Dataset, History, load
from minidl.data.__main__ import as_images, contact_sheet
from minidl.grid.points import Result
from minidl.view.plots import Panel, figure, line_plot, save
from minidl.view.tables import Table


@dataclass(frozen=True)
class Setting:
    """The settings of one run; ``batch_size`` 0 means one example at a time, in blocks."""

    epochs: int
    lr: float = 1.0
    l2: float = 0.0
    l1: float = 0.0
    hidden: tuple[int, ...] = ()
    batch_size: int = 0
    dropout: float = 0.0
    momentum: float = 0.0
    loss: str = "cross-entropy"


ONLINE = Setting(100, lr=1e-3)
BATCHES = Setting(100, batch_size=32, l2=0.01)
NETWORK = Setting(200, lr=0.002, hidden=(200, 200), batch_size=64, dropout=0.3)

QUESTIONS: dict[str, dict[str, Setting]] = {
    "q1": {
        "perceptron": Setting(100, loss="perceptron"),
        "logistic": ONLINE,
        "logistic L2 0.01": replace(ONLINE, l2=0.01),
        "logistic L1 0.01": replace(ONLINE, l1=0.01),
        "MLP": replace(ONLINE, epochs=20, hidden=(100,)),
    },
    "q2.1": {f"lr {lr}": replace(BATCHES, lr=float(lr)) for lr in ("1e-5", "1e-3", "1e-1")},
    "q2.2": {
        "batch 64": NETWORK,
        "batch 512": replace(NETWORK, batch_size=512),
        "dropout 0.01": replace(NETWORK, dropout=0.01),
        "dropout 0.25": replace(NETWORK, dropout=0.25),
        "dropout 0.5": replace(NETWORK, dropout=0.5),
        "momentum 0": replace(NETWORK, batch_size=1024),
        "momentum 0.9": replace(NETWORK, batch_size=1024, momentum=0.9),
    },
}
TITLES = {
    "q1": "one example at a time",
    "q2.1": "logistic regression, batches of 32, L2 0.01",
    "q2.2": "networks with two hidden layers of 200 units",
}
COMPARED = (
    ("accuracy", "logistic", "logistic L2 0.01"),
    ("accuracy", "logistic", "logistic L1 0.01"),
    ("batch", "batch 64", "batch 512"),
    ("dropout", "dropout 0.01", "dropout 0.25"),
    ("dropout", "dropout 0.01", "dropout 0.5"),
    ("momentum", "momentum 0", "momentum 0.9"),
)
"""Pictures, and runs whose test accuracies are compared below them."""
PICTURES = {"curves": "lr", "batch": "batch", "dropout": "dropout", "momentum": "momentum"}
"""Of runs whose names begin with these words."""


def model_file(models: Path, run: str) -> Path:
    """Return the file of a run's model."""
    return models / f"{run.replace(' ', '-')}.npz"


def tabulate(
    title: str, results: Sequence[Result], settings: Mapping[str, Setting], out: Path
) -> None:
    """Print and write the table of one question."""
    table = Table(["run", "epochs", "test", "valid", "best_valid", "norm", "zeros", "time"], title)
    for r in results:
        run, cells = r.point["run"], [r.error, None, None, None, None]
        if r.error is None:
            test, valid, best = (r.values[f"{k}_accuracy"] for k in ("test", "valid", "best_valid"))
            cells = [test, valid, best, f"{r.values['norms'][-1]:.2f}", r.values["exact_zeros"]]
        time = f"{int(r.seconds) // 60}:{r.seconds % 60:04.1f}"
        table.add(run, settings[run].epochs, *cells, time)
    table.show()
    table.write(out / "table")


def draw(runs: Mapping[str, Result], title: str, out: Path) -> None:
    """Draw the pictures of the question that the runs belong to."""
    histories = {name: History.from_dict(r.values["history"]) for name, r in runs.items()}
    accuracy = "valid_accuracy", "validation accuracy (share of examples)"

    def panel(names: Iterable[str], column: str, label: str, **options: Any) -> Panel:
        times = {k: f", {r.seconds:.0f} s" for k, r in runs.items() if k.startswith("batch")}
        columns = {k + times.get(k, ""): histories[k].column(column) for k in names}
        return over_epochs(columns, label, **options)

    for picture, kind in PICTURES.items():
        if names := [name for name in runs if name.split()[0] == kind]:
            log = kind == "lr"  # the loss of the largest learning rate is far above the others
            train = panel(names, "train_loss", "training loss (nats)", ylog=log)
            valid = panel(names, "valid_loss", "validation loss (nats)", ylog=log)
            line_plot(out / f"{picture}.png", train, valid, panel(names, *accuracy), title=title)
    if "logistic" in runs or "MLP" in runs:
        line_plot(out / "accuracy.png", panel(runs, *accuracy), title=title)
    penalties = {name: r for name, r in runs.items() if name.startswith("logistic")}
    if len(penalties) == 3:
        draw_penalties(penalties, title, out)


def draw_penalties(runs: Mapping[str, Result], title: str, out: Path) -> None:
    """Compare the penalties by the norms of the parameters and by a histogram of the weights."""
    norms = {name: r.values["norms"] for name, r in runs.items()}
    line_plot(out / "norms.png", over_epochs(norms, "l2 norm of the parameters"), title=title)
    weights = {name: load(model_file(out / "models", name)).weight.value.ravel() for name in runs}
    limit = float(np.quantile(np.abs(np.concatenate(list(weights.values()))), 0.999))
    picture = figure(7.2, 4.2)
    axes = picture.subplots()
    for name, values in weights.items():
        label = f"{name}: {runs[name].values['exact_zeros']:.1%} exactly 0"
        shown = np.clip(values, -limit, limit)
        axes.hist(shown, bins=121, range=(-limit, limit), label=label, histtype="step")
    xlabel = "weight (those beyond the ends are drawn there)"
    axes.set(xlabel=xlabel, ylabel="number of weights", yscale="log", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    text = f"{title}. Histograms of the weights of {', '.join(weights)}."
    save(picture, out / "weights.png", text)


def draw_examples(dataset: Dataset, out: Path) -> None:
    """Draw the first examples of each class, if the features are the pixels of images."""
    first = [np.flatnonzero(dataset.train.y == k)[:14] for k in range(dataset.classes or 0)]
    images = [as_images(dataset, dataset.train, rows) for rows in first]
    names = CLASSES if dataset.generated else [f"class {k}" for k in range(len(first))]
    rows = {
        k: some for k, some in zip(names, images, strict=True) if some is not None and len(some)
    }
    if len(rows) == len(first):
        contact_sheet(out / "examples.png", rows, title=f"{dataset.title}, one row a class")
