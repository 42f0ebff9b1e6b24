"""Question 2.3: how deep should a network be? One to nine hidden layers of 32 units, compared.

The other settings are those of the best network with 32 units in a published report on the
width experiment; give your own.
"""

from homework.command import add_axis
from homework.feedforward import make_parser, report, run_grid

from minidl.cli import run_main
from minidl.grid import Grid


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], out="runs/q2_depth")
    add_axis(parser, "--layers", [1, 3, 5, 7, 9])
    add_axis(parser, "--widths", [32])
    add_axis(parser, "--learning-rates", [1e-3], low=0, open_low=True)
    add_axis(parser, "--dropouts", [0.0], low=0, high=1)
    add_axis(parser, "--l2s", [1e-4], low=0)
    args = parser.parse_args()
    grid = Grid(
        layers=args.layers,
        width=args.widths,
        learning_rate=args.learning_rates,
        dropout=args.dropouts,
        l2=args.l2s,
    )
    dataset, results = run_grid(grid, args)
    report(dataset, results, axis="layers", out=args.out)


if __name__ == "__main__":
    run_main(main)
