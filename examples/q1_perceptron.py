"""Train the perceptron on one example at a time (Question 1.1).

In float64, sums of multiples of 1/256 are exact, so the digits are those of the plain loop.
"""

import numpy as np
from homework.figures import TestAccuracy
from homework.online import load, make_parser, report
from homework.runs import single_run

from minidl import History, Linear, Perceptron, Progress, compounding, fit_online
from minidl.init import zeros
from minidl.view.cli import run_main


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_perceptron", dtype="float64")
    args = parser.parse_args()
    dataset = load(args)
    model = Linear(
        dataset.features,
        dataset.classes,
        weight_init=zeros,
        bias_init=zeros,
        rng=0,
        dtype=args.dtype,
    )
    loss = Perceptron()
    history, test = History(), TestAccuracy(dataset, loss)
    with single_run(args, dataset) as (resumable,):
        fit_online(
            model,
            dataset,
            loss,
            lr=1.0,
            epochs=args.epochs,
            rng=compounding(len(dataset.train), np.random.RandomState(args.seed)),
            history=history,
            callbacks=[Progress(), test],
            **resumable,
        )
        history.restore_best(model)
        report("perceptron", model, dataset, history, test.values, args, loss_unit="logits")


if __name__ == "__main__":
    run_main(main)
