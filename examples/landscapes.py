"""Classify small landscapes by linear models and networks (Questions 1 and 2 of 2024-25).

Questions: q1 (one example at a time), q2.1 (logistic regression on mini-batches), q2.2
(feed-forward networks on mini-batches); all three by default. The tested model is the last one.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework import landscapes as course
from homework.figures import Trace
from homework.flags import base_parser, load_data, note_generated
from homework.landscapes import QUESTIONS, TITLES
from homework.models import feed_forward, linear, mlp
from homework.runs import run_points, shared
from homework.scenes import load_scenes

import minidl
from minidl.grid.points import Grid, Result, exit_status, keeping
from minidl.view.cli import run_main

QUICK = {"train": 2_400, "valid": 480, "test": 960}
"""Sizes of a run without --full."""
Settings = Mapping[str, course.Setting]


def train(
    run: str, *, settings: Settings, dataset: minidl.Dataset, seed: int, dtype: str, models: Path
) -> dict[str, Any]:
    """Train the model of one run, save it and return its figures."""
    s, norms = settings[run], Trace(lambda model: {"norms": float(np.linalg.norm(model.theta))})
    loss: minidl.Loss = minidl.Perceptron() if s.loss == "perceptron" else minidl.CrossEntropy()
    options: dict[str, Any] = {"epochs": s.epochs, "callbacks": [norms], "parts": ("valid",)}
    model: minidl.Layer
    if s.batch_size:
        model = feed_forward(dataset, s.hidden, dropout=s.dropout, rng=seed, dtype=dtype)
        optimizer = minidl.SGD(model, s.lr, momentum=s.momentum, weight_decay=s.l2)
        options |= {"batch_size": s.batch_size, "rng": seed}
        history = minidl.fit(model, dataset, loss, optimizer, **options)
    else:  # the course's script draws the weights, then the order of each epoch
        random, hidden = np.random.RandomState(seed), s.hidden
        model = mlp(dataset, hidden[0], random, dtype) if hidden else linear(dataset, dtype)
        options["rng"] = minidl.compounding(len(dataset.train), random)
        options |= {"lr": s.lr, "weight_decay": s.l2, "l1": s.l1}
        history = minidl.fit_online(model, dataset, loss, **options)
    values = {
        "test_accuracy": minidl.evaluate(model, dataset.splits["test"], loss)["accuracy"],
        "valid_accuracy": history[-1].valid_accuracy,
        "best_valid_accuracy": history.best.valid_accuracy,
        "exact_zeros": float(np.mean(model.theta == 0)),
        "norms": norms.columns["norms"],
        "history": history.to_dict(),
    }
    with keeping(values):
        minidl.Checkpoint(course.model_file(models, run)).save(model=model)
    return values


def answer(question: str, dataset: minidl.Dataset, args: argparse.Namespace) -> list[Result]:
    """Train the models of one question, several at once, and report them."""
    out, share = args.out / question, 1 if args.full else 5
    settings = {
        run: replace(s, epochs=args.epochs or max(1, s.epochs // share))
        for run, s in QUESTIONS[question].items()
    }
    print(f"{question}, {TITLES[question]}: {len(settings)} models", flush=True)
    options = {"seed": args.seed, "dtype": args.dtype, "models": (out / "models").absolute()}
    task = partial(train, settings=settings, dataset=dataset, **options)
    results = run_points(Grid(run=list(settings)), task, args, dataset=dataset, out=out)
    title = f"{TITLES[question]}, {dataset.title}"
    course.tabulate(title, results, settings, out)
    finished = {r.point["run"]: r for r in results if r.error is None}
    course.draw(finished, title, out)
    answers.write(out, course.sentences(finished, len(dataset.splits["test"])))
    return results


def main() -> int:
    epochs = "default: those of the assignment, without --full a fifth of them"
    parser = base_parser(__doc__, "runs/landscapes", epochs=epochs)
    names = ", ".join(QUESTIONS)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"{names} (default: all)")
    parser.set_defaults(data="scenes")
    args = parser.parse_args()
    if unknown := set(args.questions) - set(QUESTIONS):
        raise ValueError(f"expected {names}, got {unknown.pop()!r}")
    generated = "scenes", load_scenes
    dataset = load_data(args.data, full=args.full, sizes=QUICK, generated=generated)
    print(dataset, flush=True)
    note_generated(dataset, name="photographs", path="the course's intel_landscapes.npz")
    results: list[Result] = []
    with shared(dataset, args) as mapped:
        for name in dict.fromkeys(args.questions or QUESTIONS):
            results += answer(name, mapped, args)
    print(f"wrote tables, pictures and models to {args.out}/")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
