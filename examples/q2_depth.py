"""Compare the depths of a network with 32 units a layer: one to nine hidden layers (Question 2.3).

The other settings are those of the best network with 32 units in a published report on the
width experiment. Flags change them.
"""

import os

from homework.backends import fit_with
from homework.comparison import read_published
from homework.figures import COLUMNS, TestAccuracy, both_epochs
from homework.flags import add_axis
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings, Trained, make_parser, run_grid
from homework.report import plot_by_axis, show_best, tabulate

from minidl import CrossEntropy, Dropout, Layer, Linear, Sequential
from minidl.cli import run_main
from minidl.grid import Grid


def train(
    layers: int, width: int, learning_rate: float, dropout: float, l2: float, *, settings: Settings
) -> Trained:
    """Train the network of one point of the grid; ``layers`` counts the hidden ones."""
    dataset = settings.dataset
    hidden: list[Layer] = []
    for i in range(layers):
        hidden += [
            Linear(width if i else dataset.features, width),
            ACTIVATIONS[settings.activation](),
            Dropout(dropout),
        ]
    output = Linear(width, dataset.classes)
    model = Sequential(*hidden, output, rng=settings.rng(), dtype=settings.dtype)
    loss = CrossEntropy()
    test = TestAccuracy(dataset, loss)
    optimizer = OPTIMIZERS[settings.optimizer](model, learning_rate, weight_decay=l2)
    fit = fit_with(settings.backend)  # minidl.fit, or the same computed by PyTorch
    history = fit(
        model,
        dataset,
        loss,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        rng=settings.rng(),
        callbacks=[test],
    )
    return model, history, both_epochs(history, test.values)


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
    dataset, results = run_grid(grid, train, args)

    tabulate(dataset, results, COLUMNS, axis="layers", out=args.out)
    show_best(dataset, results, args.out)
    curves = {
        "final training accuracy": "final_train_accuracy",
        "best validation accuracy": "best_valid_accuracy",
    }
    xlabel = "depth (hidden layers)"
    plot_by_axis(dataset, results, curves, axis="layers", xlabel=xlabel, out=args.out)
    print(f"wrote the table, the pictures and the models to {args.out}{os.sep}")


if __name__ == "__main__":
    run_main(main)
