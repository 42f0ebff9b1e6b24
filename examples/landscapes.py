"""Classify small landscapes by linear models and networks (Questions 1 and 2 of 2024-25).

Questions: q1 (one example at a time), q2.1 (logistic regression on mini-batches), q2.2
(feed-forward networks on mini-batches); all three by default. The tested model is the last one.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.figures import Trace
from homework.flags import base_parser
from homework.grids import run_points, shared
from homework.landscapes import draw_examples, draw_networks, draw_online, draw_rates, tabulate
from homework.models import linear, mlp
from homework.scenes import load_scenes

from minidl import (
    SGD,
    CrossEntropy,
    Dataset,
    Dropout,
    History,
    Layer,
    Linear,
    Loss,
    Perceptron,
    ReLU,
    Sequential,
    compounding,
    evaluate,
    fit,
    fit_online,
    load_dataset,
)
from minidl.grid.points import Grid, Point, Result, exit_status, keeping
from minidl.saving.runs import Checkpoint
from minidl.view.cli import run_main

QUICK = {"train": 2_400, "valid": 480, "test": 960}
"""Sizes of a run without --full."""
# For the answers: standard errors that are chance; a factor between norms; a fall of one epoch in
# accuracy that is unstable; a loss that has settled.
ERRORS, FACTOR, DROP, SETTLED = 2.0, 1.5, 0.05, 0.02


# The runs of each question, and what was published about them.


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
    published: Mapping[str, str] = field(default_factory=dict)
    """Figures of a report on the course's photographs, by the heading of their column."""


LOGISTIC = Setting(100, lr=1e-3)
BATCHES = Setting(100, batch_size=32, l2=0.01)
NETWORK = Setting(200, lr=0.002, hidden=(200, 200), batch_size=64, dropout=0.3)


def published(setting: Setting, test: str = "", valid: str = "", time: str = "") -> Setting:
    """Return the setting with its published figures."""
    return replace(setting, published={"test": test, "valid": valid, "time": time})


QUESTIONS: dict[str, dict[str, Setting]] = {
    "q1": {
        "perceptron": published(Setting(100, loss="perceptron"), "0.3743"),
        "logistic": published(LOGISTIC, "0.4597"),
        "logistic L2 0.01": published(replace(LOGISTIC, l2=0.01), "0.5053"),
        "logistic L1 0.01": replace(LOGISTIC, l1=0.01),
        "MLP": published(Setting(20, lr=1e-3, hidden=(100,)), "0.5443"),
    },
    "q2.1": {
        "lr 1e-5": published(replace(BATCHES, lr=1e-5), valid="0.45"),
        "lr 1e-3": published(replace(BATCHES, lr=1e-3), valid="0.52"),
        "lr 1e-1": published(replace(BATCHES, lr=1e-1), valid="0.2 to 0.5"),
    },
    "q2.2": {
        "batch 64": published(NETWORK, "0.6080", "0.6090", "2:45"),
        "batch 512": published(replace(NETWORK, batch_size=512), "0.5190", "0.5028", "1:26"),
        "dropout 0.01": published(replace(NETWORK, dropout=0.01), "0.5763", "0.5762"),
        "dropout 0.25": published(replace(NETWORK, dropout=0.25), "0.6063", "0.6068"),
        "dropout 0.5": published(replace(NETWORK, dropout=0.5), "0.5950", "0.5990"),
        "momentum 0": published(replace(NETWORK, batch_size=1024), "0.4887", "0.4701"),
        "momentum 0.9": published(
            replace(NETWORK, batch_size=1024, momentum=0.9), "0.6010", "0.5997"
        ),
    },
}

TITLES = {
    "q1": "one example at a time",
    "q2.1": "logistic regression, batches of 32, L2 0.01",
    "q2.2": "networks with two hidden layers of 200 units",
}


def cost(setting: Setting) -> float:
    """Return the relative duration of one epoch: microseconds an example, as measured."""
    if setting.hidden:
        return 110.0
    return 25.0 if setting.batch_size or setting.loss == "perceptron" else 45.0


# Training.


def size(model: Layer) -> dict[str, float]:
    """Return the norm of all parameters."""
    return {"norms": float(np.linalg.norm(model.theta))}


Trained = tuple[Layer, Loss, History]


def train_online(
    dataset: Dataset, s: Setting, epochs: int, seed: int, dtype: str, norms: Trace
) -> Trained:
    """Train on one example at a time, with the weights and the order of the course's script."""
    random = np.random.RandomState(seed)  # draws the weights, then the order of each epoch
    model: Layer = linear(dataset, dtype)
    if s.hidden:
        model = mlp(dataset, s.hidden[0], random, dtype)
    loss = Perceptron() if s.loss == "perceptron" else CrossEntropy()
    history = fit_online(
        model,
        dataset,
        loss,
        lr=s.lr,
        weight_decay=s.l2,
        l1=s.l1,
        epochs=epochs,
        rng=compounding(len(dataset.train), random),
        callbacks=[norms],
        parts=("valid",),
    )
    return model, loss, history


def train_batches(
    dataset: Dataset, s: Setting, epochs: int, seed: int, dtype: str, norms: Trace
) -> Trained:
    """Train on mini-batches, with PyTorch's distribution of the initial weights."""
    layers: list[Layer] = []
    features = dataset.features
    for width in s.hidden:
        layers += [Linear(features, width), ReLU(), Dropout(s.dropout)]
        features = width
    model = Sequential(*layers, Linear(features, dataset.classes), rng=seed, dtype=dtype)
    loss = CrossEntropy()
    history = fit(
        model,
        dataset,
        loss,
        SGD(model, s.lr, momentum=s.momentum, weight_decay=s.l2),
        epochs=epochs,
        batch_size=s.batch_size,
        rng=seed,
        callbacks=[norms],
        parts=("valid",),
    )
    return model, loss, history


def train(
    run: str,
    *,
    dataset: Dataset,
    question: str,
    epochs: Mapping[str, int],
    seed: int,
    dtype: str,
    models: Path,
) -> dict[str, Any]:
    """Train the model of one run, save it and return its figures."""
    setting, norms = QUESTIONS[question][run], Trace(size)
    training = train_batches if setting.batch_size else train_online
    model, loss, history = training(dataset, setting, epochs[run], seed, dtype, norms)
    values = {
        "test_accuracy": evaluate(model, dataset.splits["test"], loss)["accuracy"],
        "valid_accuracy": history[-1].valid_accuracy,
        "best_valid_accuracy": history.best.valid_accuracy,
        "exact_zeros": float(np.mean(model.theta == 0)),
        "norms": norms.columns["norms"],
        "history": history.to_dict(),
    }
    with keeping(values):
        Checkpoint(models / f"{run.replace(' ', '-')}.npz").save(model=model)
    return values


def answer(question: str, dataset: Dataset, args: argparse.Namespace) -> list[Result]:
    """Train the models of one question, several at once, and report them."""
    settings, out = QUESTIONS[question], args.out / question
    epochs = {
        run: args.epochs or (s.epochs if args.full else max(1, s.epochs // 5))
        for run, s in settings.items()
    }
    options = {"epochs": epochs, "seed": args.seed, "dtype": args.dtype}
    recorded = {"runs": {run: {**asdict(s), "published": None} for run, s in settings.items()}}
    print(f"{question}, {TITLES[question]}: {len(settings)} models", flush=True)

    def duration(point: Point) -> float:
        return cost(settings[point["run"]]) * epochs[point["run"]]

    task = partial(
        train, dataset=dataset, question=question, models=(out / "models").absolute(), **options
    )
    grid = Grid(run=list(settings))
    results = run_points(
        grid, task, args, dataset=dataset, out=out, settings=recorded, cost=duration
    )
    title = f"{TITLES[question]}, {dataset.title}"
    # Published figures belong to complete runs.
    published = {run: s.published for run, s in settings.items()} if complete(args) else {}
    tabulate(title, results, epochs, published, out)
    draw = {"q1": draw_online, "q2.1": draw_rates, "q2.2": draw_networks}[question]
    finished = {r.point["run"]: r for r in results if r.error is None}
    draw(finished, dataset, title, out)
    n = {part: len(split) for part, split in dataset.splits.items()}
    answers.write(out, sentences(finished, n))
    return results


def sentences(runs: Mapping[str, Result], n: Mapping[str, int]) -> dict[str, list[str]]:
    """Return what the figures of the runs of one question say, by picture; ``n`` by part."""
    test = {name: float(r.values["test_accuracy"]) for name, r in runs.items()}
    found: dict[str, list[str]] = {}

    def changed(picture: str, before: str, after: str) -> None:
        if before in test and after in test:
            words = f"{after} instead of {before}"
            one = answers.effect(words, test[before], test[after], n["test"], errors=ERRORS)
            found.setdefault(picture, []).append(one)

    plain, l2, l1 = "logistic", "logistic L2 0.01", "logistic L1 0.01"
    if "MLP" in test:
        found["accuracy"] = [answers.choice("Test accuracy", test, n["test"], errors=ERRORS)]
    for other in (l2, l1):
        changed("accuracy", plain, other)
        if plain in runs and other in runs:
            norms = [float(runs[k].values["norms"][-1]) for k in (plain, other)]
            one = answers.shrinkage(f"{other} beside {plain}", *norms, factor=FACTOR)
            found.setdefault("norms", []).append(one)
            share = f"{runs[other].values['exact_zeros']:.1%} of the parameters are exactly 0"
            found.setdefault("weights", []).append(f"{other}: {share}.")
    for name, r in runs.items():
        if name.startswith("lr "):
            curve = History.from_dict(r.values["history"]).column("valid_accuracy")
            found.setdefault("curves", []).append(answers.stability(name, curve, drop=DROP))
    for kind in ("batch", "dropout", "momentum"):
        names = [name for name in runs if name.startswith(kind)]
        for other in names[1:]:
            changed(kind, names[0], other)
        for name in names if kind == "dropout" else ():
            history = History.from_dict(runs[name].values["history"])
            loss = history.column("valid_loss")
            settled = answers.convergence(f"{name}: validation loss", loss, last=10, small=SETTLED)
            found["dropout"].append(settled)
    return found


def complete(args: argparse.Namespace) -> bool:
    """Return whether the runs have all examples and epochs of the assignment."""
    return args.full and not args.epochs


# Command line.


def load(args: argparse.Namespace) -> Dataset:
    """Load the course's file or the generated scenes; a quick run takes a sample."""
    if args.data == "scenes":
        dataset = load_scenes(progress=True) if args.full else load_scenes(**QUICK, progress=True)
    else:
        dataset = load_dataset(args.data)
        if not dataset.classes or dataset.valid is None or dataset.test is None:
            raise ValueError(
                f"{args.data}: expected classes and training, validation and test parts, "
                f"got {dataset}"
            )
        dataset = dataset if args.full else dataset.sample(**QUICK)
    print(dataset, flush=True)
    if dataset.generated:
        print(
            "These are generated scenes, not photographs; the real thing: --full --data PATH, "
            "where PATH is the course's intel_landscapes.npz.",
            flush=True,
        )
    return dataset


def question(name: str) -> str:
    """Check the name of a question; an argparse type."""
    if name not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"expected {', '.join(QUESTIONS)}, got {name!r}")
    return name


def main() -> int:
    epochs = "default: those of the assignment, without --full a fifth of them"
    parser = base_parser(__doc__, "runs/landscapes", epochs=epochs)
    names = f"{', '.join(QUESTIONS)} (default: all)"
    parser.add_argument("questions", nargs="*", metavar="QUESTION", type=question, help=names)
    parser.set_defaults(data="scenes")
    args = parser.parse_args()
    dataset = load(args)
    draw_examples(dataset, args.out)
    results: list[Result] = []
    with shared(dataset, args) as mapped:
        for name in dict.fromkeys(args.questions or QUESTIONS):
            results += answer(name, mapped, args)
    print(f"wrote tables, pictures and models to {args.out}{os.sep}")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
