"""The tables and the pictures of the experiments on landscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from homework.scenes import CLASSES
from minidl.data.__main__ import as_images
from minidl.dataset import Dataset
from minidl.grid.points import Result
from minidl.history import History
from minidl.saving.models import load
from minidl.view.plots import Panel, contact_sheet, figure, line_plot, save
from minidl.view.tables import Table


def tabulate(
    title: str,
    results: Sequence[Result],
    epochs: Mapping[str, int],
    published: Mapping[str, Mapping[str, str]],
    out: Path,
) -> None:
    """Print and write the table of one question, with published figures where there are any."""
    columns = ["run", "epochs", "test", "valid", "best_valid", "norm", "zeros", "time"]
    if published:
        columns += ["published_test", "published_valid", "published_time"]
    table = Table(columns, title)
    for r in results:
        name = r.point["run"]
        values = r.values
        cells = [r.error or values["test_accuracy"]]
        if r.error is None:
            cells += [values["valid_accuracy"], values["best_valid_accuracy"]]
            cells += [f"{values['norms'][-1]:.2f}", values["exact_zeros"]]
        else:
            cells += [None] * 4
        cells.append(f"{int(r.seconds) // 60}:{r.seconds % 60:04.1f}")
        if published:
            cells += [published[name].get(key) for key in ("test", "valid", "time")]
        table.add(name, epochs[name], *cells)
    table.show()
    table.write(out / "table")
    if published:
        print("The published figures are of the course's photographs.")


def draw_curves(path: Path, runs: Mapping[str, Result], title: str, *, ylog: bool = False) -> None:
    """Draw the losses and the validation accuracy of some runs over the epochs."""
    histories = {name: History.from_dict(r.values["history"]) for name, r in runs.items()}
    panels = [
        Panel(
            {name: (h.column("epoch"), h.column(key)) for name, h in histories.items()},
            "epoch",
            label,
            ylog=ylog and key.endswith("loss"),
        )
        for key, label in (
            ("train_loss", "training loss (nats)"),
            ("valid_loss", "validation loss (nats)"),
            ("valid_accuracy", "validation accuracy (share of examples)"),
        )
    ]
    line_plot(path, *panels, title=title)


def draw_networks(runs: Mapping[str, Result], dataset: Dataset, title: str, out: Path) -> None:
    """Draw the curves of Question 2.2: batch sizes with their times, dropout, momentum."""
    for kind in ("batch", "dropout", "momentum"):
        some = {name: r for name, r in runs.items() if name.startswith(kind)}
        if kind == "batch":
            some = {f"{name}, {r.seconds:.0f} s": r for name, r in some.items()}
        if some:
            draw_curves(out / f"{kind}.png", some, title)


def draw_rates(runs: Mapping[str, Result], dataset: Dataset, title: str, out: Path) -> None:
    """Draw the curves of Question 2.1, on a logarithmic scale: the largest rate is unstable."""
    draw_curves(out / "curves.png", runs, title, ylog=True)


def draw_online(runs: Mapping[str, Result], dataset: Dataset, title: str, out: Path) -> None:
    """Draw the curves of Question 1 and compare the penalties by norms, zeros and a histogram."""
    histories = {name: History.from_dict(r.values["history"]) for name, r in runs.items()}
    accuracies = {k: (h.column("epoch"), h.column("valid_accuracy")) for k, h in histories.items()}
    label = "validation accuracy (share of examples)"
    line_plot(out / "accuracy.png", Panel(accuracies, "epoch", label), title=title)
    penalties = {name: r for name, r in runs.items() if name.startswith("logistic")}
    if len(penalties) < 3:
        return
    norms = {k: (range(len(r.values["norms"])), r.values["norms"]) for k, r in penalties.items()}
    line_plot(out / "norms.png", Panel(norms, "epoch", "l2 norm of the parameters"), title=title)
    weights = {}
    for name in penalties:
        model = load(out / "models" / f"{name.replace(' ', '-')}.npz")
        weights[name] = model.weight.value.ravel()
    limit = float(np.quantile(np.abs(np.concatenate(list(weights.values()))), 0.999))
    picture = figure(7.2, 4.2)
    axes = picture.subplots()
    for name, values in weights.items():
        zeros_share = penalties[name].values["exact_zeros"]
        text = f"{name}: {zeros_share:.1%} exactly 0"
        shown = np.clip(values, -limit, limit)
        axes.hist(shown, bins=121, range=(-limit, limit), label=text, histtype="step")
    axes.set(
        xlabel="weight (those beyond the ends are drawn there)",
        ylabel="number of weights",
        yscale="log",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    description = f"{title}. Histograms of the weights of {', '.join(weights)}."
    save(picture, out / "weights.png", description)
    print(PENALTIES)


PENALTIES = """\
L2 pulls each weight towards 0 by a share of itself: small weights stay small, none becomes 0. L1
pulls all weights by the same amount and stops them at 0: a weight whose gradient is smaller than
the penalty on average ends at exactly 0, and the others are biased towards 0. So L1 selects
features, and L2 spreads weight over correlated ones, as neighbouring pixels are."""


def draw_examples(dataset: Dataset, out: Path) -> None:
    """Draw the first examples of each class, if the features are the pixels of images."""
    rows = {}
    for k in range(dataset.classes):
        first = np.flatnonzero(dataset.train.y == k)[:14]
        images = as_images(dataset, dataset.train, first)
        if images is None or not len(first):
            return
        rows[CLASSES[k] if dataset.generated else f"class {k}"] = images
    contact_sheet(out / "examples.png", rows, title=f"{dataset.title}, one row a class")
