"""Train logistic regression on one example at a time (Questions 1.2a and 1.2b).

On raw pixels, averages of 2x2 pixels or principal components. Draws the l2 norm of the weights over
the epochs; with --l1 it is compared with a run without, for the share of weights that are 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from homework import answers
from homework.figures import TestAccuracy, Trace
from homework.flags import add_number
from homework.models import COMPONENTS, FEATURES, linear, make_feature
from homework.online import load, make_parser, report
from homework.runs import single_run

from minidl import PCA, CrossEntropy, History, Layer, Progress, compounding, fit_online
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot

THRESHOLDS = {"settled": 0.01, "gap": 0.03, "rise": 0.02, "fits": 0.9}
"""Of the answers in words, see ``homework.answers``."""


def size(model: Layer) -> Mapping[str, float]:
    """Return the l2 norm of all weights and the share that is exactly 0."""
    return {"norm": float(np.linalg.norm(model.theta)), "zero": float(np.mean(model.theta == 0))}


def main() -> None:
    parser = make_parser(__doc__, "runs/q1_logistic", dtype="float64")
    add_number(parser, "--lr", 1e-4, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 1e-5, "L2 penalty", low=0)
    add_number(parser, "--l1", 0.0, "L1 penalty, by a proximal step after each block of 64", low=0)
    parser.add_argument("--features", choices=FEATURES, default="raw")
    add_number(parser, "--components", COMPONENTS, "principal components of --features pca")
    args = parser.parse_args()
    dataset = load(args)
    feature = make_feature(args.features, args.components)
    data = dataset if feature is None else feature.fit_transform(dataset, args.dtype)
    loss, sizes = CrossEntropy(), dict[str, Trace]()
    penalties = list(dict.fromkeys((0.0, args.l1)))
    files = ["checkpoint.npz" if l1 == args.l1 else "checkpoint-without.npz" for l1 in penalties]
    with single_run(args, dataset, names=files) as resumable:
        for l1, options in zip(penalties, resumable, strict=True):
            model, history, test = linear(data, args.dtype), History(), TestAccuracy(data, loss)
            sizes[f"L1 {l1:g}"] = trace = Trace(size)
            fit_online(
                model,
                data,
                loss,
                lr=args.lr,
                weight_decay=args.l2,
                l1=l1,
                epochs=args.epochs,
                rng=compounding(len(data.train), np.random.RandomState(args.seed)),
                history=history,
                callbacks=[Progress(), trace, test],
                **options,
            )
        history.restore_best(model)
        settings: dict[str, Any] = {"features": args.features, "lr": args.lr, "l2": args.l2}
        settings["l1"] = args.l1
        name = "logistic regression"
        report(name, model, data, history, test.values, args, settings=settings, pixels=feature)
        if isinstance(feature, PCA):
            share = feature.ratios.sum()
            print(f"{len(feature.ratios)} components hold {share:.4f} of the variance")
        labels = {"norm": "l2 norm of the weights", "zero": "share of weights that are 0"}
        panels = [
            Panel(
                {k: (range(len(t.columns[key])), t.columns[key]) for k, t in sizes.items()},
                "epoch",
                label,
            )
            for key, label in labels.items()
        ]
        line_plot(args.out / "norm", *panels[: len(sizes)], title=f"{name}, {data.title}")
        for l1, trace in sizes.items():
            norm, zero = (trace.columns[key][-1] for key in ("norm", "zero"))
            print(f"{l1}: norm {norm:.4f}, exactly zero {zero:.4f}")
        norms = trace.columns["norm"]
        name, small = "The norm of the weights", 0.02 * norms[-1]
        grows = answers.convergence(name, norms, last=5, small=small)
        found = {"curves": answers.of_run(history, **THRESHOLDS), "norm": [grows]}
        answers.write(args.out, found)


if __name__ == "__main__":
    run_main(main)
