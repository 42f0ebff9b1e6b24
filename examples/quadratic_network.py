"""Fit a network with the activation g(z) = z (1 - z) in closed form, and by gradient descent.

Such a network with one hidden layer is a quadratic function of its input, c'phi(x). The functions
turn parameters into c and c into parameters; docs/quadratic.md derives them. The script fits c
by least squares and compares the loss with gradient descent on the network from many starts, for
each number of hidden units.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.flags import add_number
from homework.grids import run_points
from homework.quadratic import (
    coefficients,
    distances,
    fold,
    least_squares,
    make_network,
    phi,
    unfold,
    units_needed,
)

from minidl import SGD, Layer, Parameter, Sequential, SquaredError
from minidl.checks import Array, Backward
from minidl.files import as_path
from minidl.grid.points import Grid, Result, exit_status
from minidl.layer import write_gradients
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

# Gradient descent.


def mean_loss(predicted: Array, y: Array) -> Array:
    """Return half the mean squared error, for each column of ``predicted``."""
    halves: Array = 0.5 * np.mean((predicted - y[:, None]) ** 2, axis=0)
    return halves


class Starts(Layer):
    """Independent networks with quadratic activation, side by side: (n, D) to (n, starts).

    forward: ``z = x w + b``, ``h = z (1 - z)``, ``y = h v + v0`` for each network

    backward: ``dv = h^T dy``, ``dz = dy v^T (1 - 2 z)``, ``dw = x^T dz``, ``db = sum_n dz_n``

    With a loss that adds up the outputs of an example, each network is trained as if alone.
    The initial values are those of ``Linear``: uniform within one over the root of the inputs.
    """

    skips_input_grad = True

    def __init__(self, features: int, units: int, starts: int, rng: np.random.Generator) -> None:
        self.in_features = features

        def uniform(fan_in: int, *shape: int) -> Parameter:
            return Parameter(rng.uniform(-1, 1, (starts, *shape)) / np.sqrt(fan_in))

        self.w, self.b = uniform(features, features, units), uniform(features, 1, units)
        self.v, self.v0 = uniform(units, units, 1), uniform(units, 1, 1)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        z = x @ self.w.value + self.b.value  # (starts, n, units)
        h = z * (1 - z)
        y = h @ self.v.value + self.v0.value

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            dy = dy.T[:, :, None]
            dz = dy * self.v.value.swapaxes(1, 2) * (1 - 2 * z)
            self.v.grad, self.v0.grad = h.swapaxes(1, 2) @ dy, dy.sum(axis=1, keepdims=True)
            self.w.grad, self.b.grad = x.T @ dz, dz.sum(axis=1, keepdims=True)
            return (dz @ self.w.value.swapaxes(1, 2)).sum(axis=0) if input_grad else None

        return y[:, :, 0].T, backward

    def network(self, start: int) -> Sequential:
        """Return one of the networks."""
        w, b, v, v0 = (p.value[start] for p in (self.w, self.b, self.v, self.v0))
        return make_network(w.T, b[0], v[:, 0], float(v0[0, 0]))


def descend(x: Array, y: Array, model: Starts, steps: int, lr: float) -> Array:
    """Train all networks by gradient descent with momentum 0.9; return their losses.

    A network that diverges has the loss NaN.
    """
    loss, optimizer = SquaredError(), SGD(model, lr, momentum=0.9)
    targets = np.repeat(y[:, None], len(model.w.value), axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            outputs, backward = model.forward(x, train=True)
            _, dy = loss(outputs, targets)
            write_gradients(model, backward, dy)
            optimizer.step()
        return mean_loss(model(x), y)


# The experiment.


def random_c(features: int, rank: int, inside: bool, rng: np.random.Generator) -> Array:
    """Return a c whose quadratic part has this rank, and its range the linear part, or not."""
    q, _ = np.linalg.qr(rng.normal(size=(features, features)))
    e = np.zeros(features)
    e[:rank] = rng.choice([-1, 1], rank) * rng.uniform(0.5, 2, rank)
    linear = rng.normal(size=features)
    if inside:
        linear = q[:, :rank] @ (q[:, :rank].T @ linear)
    return coefficients(rng.normal(), linear, q * e @ q.T)


def make_data(target: str, features: int, n: int, seed: int) -> tuple[Array, Array, Array]:
    """Return inputs, targets and the c that least squares finds, of one of ``TARGETS``.

    The noise is orthogonal to the columns of phi(x).
    """
    rng = np.random.default_rng(seed)
    generic = target == "generic"
    c = random_c(features, features if generic else features - 1, generic, rng)
    x = rng.normal(size=(n, features))
    q, _ = np.linalg.qr(phi(x))
    noise = rng.normal(size=n)
    return x, phi(x) @ c + 0.1 * (noise - q @ (q.T @ noise)), c


NEAR = 1e-6
"""For the answers: the share of the lowest loss by which another loss is the same."""
TARGETS = {
    "generic": "Q invertible",
    "singular": "rank of Q is D - 1, l outside its range",
}


def compare(
    target: str, units: int, *, features: int, n: int, starts: int, steps: int, lr: float, seed: int
) -> dict[str, Any]:
    """Return the loss of least squares and the gaps of gradient descent from all starts."""
    x, y, c = make_data(target, features, n, seed)
    optimum = float(mean_loss(phi(x) @ least_squares(x, y)[:, None], y)[0])
    model = Starts(features, units, starts, np.random.default_rng([seed, units]))
    losses = descend(x, y, model, steps, lr)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise FloatingPointError(f"all {starts} starts diverged at learning rate {lr:g}")
    return {
        "least_squares": optimum,
        "best": float(finite.min()),
        "median": float(np.median(finite)),
        "diverged": starts - len(finite),
        "needed": units_needed(c),
    }


def tabulate_fits(results: list[Result], features: int, out: Path) -> None:
    """Print, write and draw the gaps between gradient descent and least squares."""
    columns = ["target", "units", "least_squares", "best", "median", "gap", "diverged"]
    table = Table(columns, f"half the mean squared error, D = {features}")
    panels, sentences = [], []
    for target, words in TARGETS.items():
        rows = [r for r in results if r.point["target"] == target]
        for r in rows:
            cells = [r.values[k] for k in ("least_squares", "best", "median")]
            gap = cells[1] - cells[0]
            text = [f"{value:.3e}" for value in (*cells, gap)] if not r.error else [r.error, *"   "]
            table.add(target, r.point["units"], *text, r.values.get("diverged"))
        table.end_group()
        good = [r for r in rows if not r.error]
        units = [r.point["units"] for r in good]
        reached = [
            r.point["units"]
            for r in good
            if r.values["best"] - r.values["least_squares"] < NEAR * r.values["least_squares"]
        ]
        least = f"with {reached[0]} units or more" if reached else "with no number of units here"
        needed = f"{good[0].values['needed']} are needed" if good else "no run has ended"
        sentences.append(
            f"{target} ({words}): the best start reaches the global minimum {least}; {needed}."
        )
        gaps = {
            name: (units, [max(r.values[name] - r.values["least_squares"], 1e-17) for r in good])
            for name in ("best", "median")
        }
        labels = {f"{name} of all starts": curve for name, curve in gaps.items()}
        needed = f"{good[0].values['needed']} units needed" if good else "no run finished"
        title = f"{words}\n{needed}"
        panels.append(
            Panel(labels, "hidden units K", "loss above least squares", title, units, ylog=True)
        )
    table.show()
    table.write(out / "gaps")
    line_plot(out / "gaps.png", *panels, title=f"gradient descent with momentum, D = {features}")
    answers.write(out, {"gaps": sentences})


def tabulate_units(features: int, starts: int, seed: int, out: Path) -> None:
    """Print and write the units that each kind of c needs, and the best fits with fewer."""
    columns = ["rank", "linear_part", "units", "error", "one_less", "its_largest", "two_less"]
    table = Table(columns, f"distance to a random c, D = {features}: smallest of {starts} starts")
    rng = np.random.default_rng(seed)
    for rank in range(features + 1):
        for inside in (True, False) if 0 < rank < features else (rank > 0,):
            c = random_c(features, rank, inside, rng)
            need = units_needed(c)
            error = float(np.abs(fold(unfold(c, need)) - c).max())
            near, largest = distances(c, need - 1, starts, 200, seed)
            cells = [f"{near.min():.1e}", f"{largest[near.argmin()]:.1e}"]
            if not inside:
                far, _ = distances(c, need - 2, starts, 200, seed)
                cells.append(f"{far.min():.1e}")
            table.add(
                rank,
                "inside" if inside else "outside",
                need,
                f"{error:.1e}",
                *cells,
                *[""] * inside,
            )
    table.show()
    print(
        "error: of the network with that many units; one_less, two_less: the closest network\n"
        "with so many units fewer; its_largest: the largest hidden weight of the former. If the\n"
        "linear part is outside the range, one unit less comes close with ever larger weights."
    )
    table.write(out / "units")


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_number(parser, "--features", 4, "D")
    add_number(parser, "--examples", 200, "number of examples")
    add_number(parser, "--starts", 50, "random initial values for each number of units")
    add_number(parser, "--steps", 3000, "steps of gradient descent")
    add_number(parser, "--lr", 0.01, "learning rate", low=0, open_low=True)
    add_number(parser, "--seed", 0, "of the data and the initial values", low=0)
    parser.add_argument("--jobs", type=int_argument("jobs"), default=2, help="processes")
    out = Path("runs/quadratic_network")
    parser.add_argument("--out", type=as_path, default=out, help=f"folder (default {out})")
    args = parser.parse_args()
    options = {
        "features": args.features,
        "n": args.examples,
        "starts": args.starts,
        "steps": args.steps,
        "lr": args.lr,
        "seed": args.seed,
    }
    grid = Grid(target=list(TARGETS), units=list(range(1, args.features + 2)))
    task = partial(compare, **options)
    results = run_points(grid, task, args)
    tabulate_fits(results, args.features, args.out)
    tabulate_units(min(args.features, 3), 4 * args.starts, args.seed, args.out)
    print(f"wrote the tables and a picture to {args.out}{os.sep}")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
