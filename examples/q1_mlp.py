"""Train a network with one hidden layer on one example at a time (Question 1.3)."""

import numpy as np
from homework import answers
from homework.figures import TestAccuracy
from homework.flags import add_number
from homework.models import mlp
from homework.online import load, make_parser, report
from homework.runs import single_run

import minidl
from minidl.view.cli import run_main


def main() -> None:
    parser = make_parser(__doc__, "runs/q1_mlp", dtype="float32")
    add_number(parser, "--width", 100, "hidden units")
    add_number(parser, "--lr", 1e-3, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 0.0, "L2 penalty", low=0)
    args = parser.parse_args()
    dataset = load(args)
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    model, loss = mlp(dataset, args.width, random, args.dtype), minidl.CrossEntropy()
    history, test = minidl.History(), TestAccuracy(dataset, loss)
    order = minidl.compounding(len(dataset.train), random)
    options = {"epochs": args.epochs, "rng": order, "history": history}
    options |= {"lr": args.lr, "weight_decay": args.l2, "callbacks": [minidl.Progress(), test]}
    with single_run(args, dataset) as (resumable,):
        minidl.fit_online(model, dataset, loss, **options, **resumable)
        settings = {"width": args.width, "lr": args.lr, "l2": args.l2}
        found = report("MLP", model, dataset, history, test.values, args, settings=settings)
        answers.write(args.out, {"curves": found})


if __name__ == "__main__":
    run_main(main)
