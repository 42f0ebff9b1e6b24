"""Train a network with one hidden layer on one example at a time (Question 1.3)."""

import numpy as np
from homework.figures import TestAccuracy
from homework.flags import add_number
from homework.online import load, make_parser, report
from homework.runs import single_run

from minidl import (
    CrossEntropy,
    Dataset,
    History,
    Linear,
    Progress,
    ReLU,
    Sequential,
    compounding,
    fit_online,
)
from minidl.init import zeros
from minidl.view.cli import run_main


def build(dataset: Dataset, width: int, random: np.random.RandomState, dtype: str) -> Sequential:
    """Return the network with the course's initial values.

    Weights are from N(0.1, 0.1^2), drawn in the course's layout (out, in); biases are zero.
    """
    hidden = Linear(dataset.features, width, weight_init=zeros, bias_init=zeros)
    output = Linear(width, dataset.classes, weight_init=zeros, bias_init=zeros)
    model = Sequential(hidden, ReLU(), output, rng=0, dtype=dtype)
    for layer in (hidden, output):
        layer.weight.value = random.normal(0.1, 0.1, layer.weight.shape[::-1]).T
    return model


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_mlp", dtype="float32")
    add_number(parser, "--width", 100, "hidden units")
    add_number(parser, "--lr", 1e-3, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 0.0, "L2 penalty", low=0)
    args = parser.parse_args()
    dataset = load(args)
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    model = build(dataset, args.width, random, args.dtype)
    loss = CrossEntropy()
    history, test = History(), TestAccuracy(dataset, loss)
    with single_run(args, dataset) as (resumable,):
        fit_online(
            model,
            dataset,
            loss,
            lr=args.lr,
            weight_decay=args.l2,
            epochs=args.epochs,
            rng=compounding(len(dataset.train), random),
            history=history,
            callbacks=[Progress(), test],
            **resumable,
        )
        history.restore_best(model)
        settings = {"width": args.width, "lr": args.lr, "l2": args.l2}
        report("MLP", model, dataset, history, test.values, args, settings=settings)


if __name__ == "__main__":
    run_main(main)
