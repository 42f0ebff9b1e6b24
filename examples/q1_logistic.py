"""Train logistic regression on one example at a time (Questions 1.2a and 1.2b).

On raw pixels, averages of 2x2 pixels or principal components. Draws the l2 norm of the weights over
the epochs; with --l1 it is compared with a run without, for the share of weights that are 0.
"""

from collections.abc import Mapping

import numpy as np
from homework import answers
from homework.figures import TestAccuracy, Trace, over_epochs
from homework.flags import add_number
from homework.models import COMPONENTS, FEATURES, linear, make_feature
from homework.online import load, make_parser, report
from homework.runs import single_run

import minidl
from minidl.view.cli import run_main
from minidl.view.plots import line_plot


def size(model: minidl.Layer) -> Mapping[str, float]:
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
    loss, sizes, name = minidl.CrossEntropy(), dict[str, Trace](), "logistic regression"
    penalties = list(dict.fromkeys((0.0, args.l1)))
    files = ["checkpoint.npz" if l1 == args.l1 else "checkpoint-without.npz" for l1 in penalties]
    with single_run(args, dataset, names=files) as resumable:
        for l1, options in zip(penalties, resumable, strict=True):
            model, history = linear(data, args.dtype), minidl.History()
            test, sizes[f"L1 {l1:g}"] = TestAccuracy(data, loss), Trace(size)
            order = minidl.compounding(len(data.train), np.random.RandomState(args.seed))
            options |= {"lr": args.lr, "weight_decay": args.l2, "l1": l1, "epochs": args.epochs}
            options["callbacks"] = [minidl.Progress(), sizes[f"L1 {l1:g}"], test]
            minidl.fit_online(model, data, loss, rng=order, history=history, **options)
        settings = {key: getattr(args, key) for key in ("features", "lr", "l2", "l1")}
        options = {"settings": settings, "pixels": feature}
        found = {"curves": report(name, model, data, history, test.values, args, **options)}
        if isinstance(feature, minidl.PCA):
            share = feature.ratios.sum()
            print(f"{len(feature.ratios)} components hold {share:.4f} of the variance")
        labels = {"norm": "l2 norm of the weights", "zero": "share of weights that are 0"}
        panels = [
            over_epochs({l1: trace.columns[key] for l1, trace in sizes.items()}, label)
            for key, label in labels.items()
        ]
        line_plot(args.out / "norm", *panels[: len(sizes)], title=f"{name}, {data.title}")
        for l1, trace in sizes.items():
            norms, zeros = (trace.columns[key] for key in labels)
            print(f"{l1}: norm {norms[-1]:.4f}, exactly zero {zeros[-1]:.4f}")
        small, words = 0.02 * norms[-1], "The norm of the weights"
        found["norm"] = [answers.convergence(words, norms, last=5, small=small)]
        answers.write(args.out, found)


if __name__ == "__main__":
    run_main(main)
