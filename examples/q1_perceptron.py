"""Train the perceptron on one example at a time (Question 1.1).

In float64, sums of multiples of 1/256 are exact, so the digits are those of the plain loop.
"""

import numpy as np
from homework import answers
from homework.figures import TestAccuracy
from homework.models import linear
from homework.online import load, make_parser, report
from homework.runs import single_run

from minidl import History, Perceptron, Progress, compounding, fit_online
from minidl.view.cli import run_main

THRESHOLDS = {"settled": 0.01, "gap": 0.03, "rise": 0.02, "fits": 0.9}
"""Of the answers in words, see ``homework.answers``."""


def main() -> None:
    args = make_parser(__doc__, "runs/q1_perceptron", dtype="float64").parse_args()
    dataset = load(args)
    model, loss, history = linear(dataset, args.dtype), Perceptron(), History()
    test = TestAccuracy(dataset, loss)
    order = compounding(len(dataset.train), np.random.RandomState(args.seed))
    with single_run(args, dataset) as (resumable,):
        fit_online(
            model,
            dataset,
            loss,
            lr=1.0,
            epochs=args.epochs,
            rng=order,
            history=history,
            callbacks=[Progress(), test],
            **resumable,
        )
        history.restore_best(model)
        report("perceptron", model, dataset, history, test.values, args, loss_unit="logits")
        answers.write(args.out, {"curves": answers.of_run(history, **THRESHOLDS)})


if __name__ == "__main__":
    run_main(main)
