"""The runs on landscapes, their tables and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from homework import answers
from homework.figures import over_epochs
from minidl import History, load
from minidl.grid.points import Result
from minidl.view.plots import Panel, line_plot
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
# For the answers: standard errors that are chance; a factor between norms; a fall of one epoch in
# accuracy that is unstable; a loss that has settled.
ERRORS, FACTOR, DROP, SETTLED = 2.0, 1.5, 0.05, 0.02
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
    curves = {}
    for name, values in weights.items():
        counts, edges = np.histogram(values.clip(-limit, limit), 121, (-limit, limit))
        label = f"{name}: {runs[name].values['exact_zeros']:.1%} exactly 0"
        curves[label] = (edges[1:] + edges[:-1]) / 2, counts
    words = "weight (those beyond the ends are drawn there)", "number of weights"
    panel = Panel(curves, *words, ylog=True, dashed=list(curves)[1:])  # equal curves are all seen
    line_plot(out / "weights.png", panel, title=title)


def sentences(runs: Mapping[str, Result], n: int) -> dict[str, list[str]]:
    """Return what the figures of the runs of one question say, by picture; n test examples."""
    test = {name: float(r.values["test_accuracy"]) for name, r in runs.items()}
    found = defaultdict(list)
    if "MLP" in test:
        found["accuracy"].append(answers.choice("Test accuracy", test, n, errors=ERRORS))
    for picture, before, after in COMPARED:
        if before in test and after in test:
            words, accuracies = f"{after} instead of {before}", (test[before], test[after])
            found[picture].append(answers.effect(words, *accuracies, n, errors=ERRORS))
    for name, r in runs.items():
        history, kind = History.from_dict(r.values["history"]), name.split()[0]
        if kind == "lr":
            accuracy = history.column("valid_accuracy")
            found["curves"].append(answers.stability(name, accuracy, drop=DROP))
        elif kind == "dropout":
            loss, words = history.column("valid_loss"), f"{name}: validation loss"
            found[kind].append(answers.convergence(words, loss, last=10, small=SETTLED))
        elif kind == "logistic" and name != kind and kind in runs:
            norms = [runs[k].values["norms"][-1] for k in (kind, name)]
            sentence = answers.shrinkage(f"{name} beside {kind}", *norms, factor=FACTOR)
            found["norms"].append(sentence)
            share = r.values["exact_zeros"]
            found["weights"].append(f"{name}: {share:.1%} of the parameters are exactly 0.")
    return found
