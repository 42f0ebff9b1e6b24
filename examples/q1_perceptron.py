"""Question 1.1: the perceptron, on one example at a time.

In float64 sums of multiples of 1/256 are exact, so the digits are those of the plain loop.
"""

from homework.online_runs import linear_model, load, make_parser, report, train

from minidl.cli import run_main
from minidl.losses import Perceptron


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_perceptron", dtype="float64")
    args = parser.parse_args()
    dataset = load(args)
    model = linear_model(dataset, args.dtype)
    history, scores = train(model, dataset, Perceptron(), args, lr=1.0)
    report("perceptron", model, dataset, history, scores, args, unit="logits")


if __name__ == "__main__":
    run_main(main)
