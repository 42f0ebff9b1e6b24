"""Question 2.2: how wide should a network be? 80 networks with one hidden layer, compared.

Five widths, four learning rates, with and without dropout and L2; each network is Linear,
activation, Dropout, Linear, trained by mini-batches on cross-entropy.
"""

from pathlib import Path

from homework.command import add_axis
from homework.feedforward import make_parser, read_published, report, run_grid

from minidl.cli import run_main
from minidl.grid import Grid


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], out="runs/q2_width")
    add_axis(parser, "--widths", [16, 32, 64, 128, 256])
    add_axis(parser, "--learning-rates", [1e-2, 1e-3, 1e-4, 1e-5], low=0, open_low=True)
    add_axis(parser, "--dropouts", [0.0, 0.3], low=0, high=1)
    add_axis(parser, "--l2s", [0.0, 1e-4], low=0)
    parser.add_argument("--compare", type=Path, metavar="CSV", help="published accuracies")
    args = parser.parse_args()
    published = read_published(args.compare) if args.compare else None
    grid = Grid(
        width=args.widths,
        learning_rate=args.learning_rates,
        dropout=args.dropouts,
        l2=args.l2s,
    )
    dataset, results = run_grid(grid, args)
    report(dataset, results, axis="width", out=args.out, published=published)


if __name__ == "__main__":
    run_main(main)
