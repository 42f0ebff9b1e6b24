"""Train the perceptron on one example at a time (Question 1.1).

In float64, sums of multiples of 1/256 are exact, so the digits are those of the plain loop.
"""

import numpy as np
from homework import answers
from homework.figures import TestAccuracy
from homework.models import linear
from homework.online import load, make_parser, report
from homework.runs import single_run

import minidl
from minidl.view.cli import run_main


def main() -> None:
    args = make_parser(__doc__, "runs/q1_perceptron", dtype="float64").parse_args()
    dataset = load(args)
    model, loss = linear(dataset, args.dtype), minidl.Perceptron()
    history, test = minidl.History(), TestAccuracy(dataset, loss)
    order = minidl.compounding(len(dataset.train), np.random.RandomState(args.seed))
    options = {"lr": 1.0, "epochs": args.epochs, "rng": order, "history": history}
    with single_run(args, dataset) as (resumable,):
        callbacks = [minidl.Progress(), test]
        minidl.fit_online(model, dataset, loss, callbacks=callbacks, **options, **resumable)
        found = report("perceptron", model, dataset, history, test.values, args, loss_unit="logits")
        answers.write(args.out, {"curves": found})


if __name__ == "__main__":
    run_main(main)
