"""Question 3: what sparse output maps cost or bring. One network, four losses, compared.

Linear, activation, Dropout, Linear, trained with cross-entropy, the sparsemax loss, the entmax-1.5
loss and the smoothed relumax loss.
"""

from homework.command import add_axis
from homework.feedforward import make_parser, run_grid
from homework.sparse import REGULARIZED, relumax_loss, report_losses, train_with_loss

from minidl.cli import run_main
from minidl.grid import Grid


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], out="runs/q3_train")
    add_axis(parser, "--b", [5.0], low=0, open_low=True)
    add_axis(parser, "--eps", [0.1], name="eps", low=0)
    add_axis(parser, "--widths", [256])
    add_axis(parser, "--learning-rates", [1e-3], low=0, open_low=True)
    add_axis(parser, "--dropouts", [0.3], low=0, high=1)
    add_axis(parser, "--l2s", [0.0], low=0)
    args = parser.parse_args()
    relumaxes = [relumax_loss(b, eps) for b in args.b for eps in args.eps]
    grid = Grid(
        loss=[*REGULARIZED, *relumaxes],
        width=args.widths,
        learning_rate=args.learning_rates,
        dropout=args.dropouts,
        l2=args.l2s,
    )
    dataset, results = run_grid(grid, args, train_with_loss)
    report_losses(dataset, results, args.out)


if __name__ == "__main__":
    run_main(main)
