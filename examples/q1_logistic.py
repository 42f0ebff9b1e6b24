"""Question 1.2: logistic regression on one example at a time: one run, or a grid of twelve.

One run also draws the l2 norm of the weights over the epochs; with --l1 it is compared with a
run without, for the share of weights that are exactly 0.
"""

from homework.command import add_number
from homework.online_runs import (
    FEATURES,
    Weights,
    draw_penalties,
    feature,
    linear_model,
    load,
    make_parser,
    report,
    run_grid,
    train,
)

from minidl.cli import run_main
from minidl.losses import CrossEntropy


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_logistic", dtype="float64")
    add_number(parser, "--lr", 1e-4, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 1e-5, "L2 penalty", low=0)
    add_number(parser, "--l1", 0.0, "L1 penalty, by a proximal step after each block of 64", low=0)
    parser.add_argument("--features", choices=FEATURES, help="default raw; with --grid raw and pca")
    parser.add_argument("--grid", action="store_true", help="3 learning rates x 2 L2 x 2 features")
    args = parser.parse_args()
    dataset = load(args)
    if args.grid:
        other = args.features if args.features not in (None, "raw") else "pca"
        run_grid(dataset, args, ["raw", other], [1e-3, 1e-4, 1e-5], [1e-5, 1e-4])
        return
    chosen = feature(args.features or "raw")
    data = dataset if chosen is None else chosen.fit_transform(dataset, args.dtype)
    loss, watches = CrossEntropy(), {}
    for l1 in dict.fromkeys((0.0, args.l1)):
        model, watches[l1] = linear_model(data, args.dtype), Weights()
        rates = {"lr": args.lr, "l2": args.l2, "l1": l1}
        history, scores = train(model, data, loss, args, watch=watches[l1], **rates)
        if len(history) <= args.epochs:  # interrupted
            break
    report("logistic regression", model, data, history, scores, args, pixels=chosen)
    draw_penalties(watches, data, args.out)


if __name__ == "__main__":
    run_main(main)
