"""Question 1.3: a network with one hidden layer, trained on one example at a time."""

import numpy as np
from homework.command import add_number
from homework.online_runs import load, make_parser, mlp, report, train

from minidl.cli import run_main
from minidl.losses import CrossEntropy


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_mlp", dtype="float32")
    add_number(parser, "--width", 100, "hidden units")
    add_number(parser, "--lr", 1e-3, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 0.0, "L2 penalty", low=0)
    args = parser.parse_args()
    dataset = load(args)
    random = np.random.RandomState(args.seed)
    model = mlp(dataset, args.width, random, args.dtype)
    history, scores = train(
        model, dataset, CrossEntropy(), args, random=random, lr=args.lr, l2=args.l2
    )
    report("MLP", model, dataset, history, scores, args)


if __name__ == "__main__":
    run_main(main)
