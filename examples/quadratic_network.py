"""Fit a network with the activation g(z) = z (1 - z) in closed form, and by gradient descent.

Such a network with one hidden layer is a quadratic function of its input, c'phi(x). The functions
turn parameters into c and c into parameters; docs/quadratic.md derives them. The script fits c
by least squares and compares the loss with gradient descent on the network from many starts, for
each number of hidden units.
"""

from functools import partial
from pathlib import Path

import numpy as np
from homework import answers
from homework.flags import add_number
from homework.quadratic import distances, fold, least_squares, phi, random_c, unfold, units_needed
from homework.runs import run_points

from minidl.checks import Array
from minidl.files import as_path
from minidl.grid.points import Grid, Result, exit_status
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

TARGETS = {"generic": "Q invertible", "singular": "rank of Q is D - 1, l outside its range"}
NEAR = 1e-6
"""For the answers: the share of the lowest loss by which another loss is the same."""
Network = tuple[Array, Array, Array, Array]
"""w (starts, D, K), b (starts, 1, K), v (starts, K, 1) and v0 (starts, 1, 1), side by side."""


def draw_starts(features: int, units: int, starts: int, rng: np.random.Generator) -> Network:
    """Return the initial values of ``Linear``: uniform within one over the root of the inputs."""

    def uniform(fan_in: int, *shape: int) -> Array:
        values: Array = rng.uniform(-1, 1, (starts, *shape)) / np.sqrt(fan_in)
        return values

    first = uniform(features, features, units), uniform(features, 1, units)
    return *first, uniform(units, units, 1), uniform(units, 1, 1)


def mean_loss(predicted: Array, y: Array) -> Array:
    """Return half the mean squared error, for each column of ``predicted``."""
    halves: Array = 0.5 * np.mean((predicted - y[:, None]) ** 2, axis=0)
    return halves


def descend(x: Array, y: Array, network: Network, steps: int, lr: float) -> Array:
    """Train networks in place by gradient descent with momentum 0.9; return their losses.

    Forward: ``z = x w + b``, ``h = z (1 - z)``, ``y = h v + v0``. Backward: ``dv = h^T dy``,
    ``dz = dy v^T (1 - 2 z)``, ``dw = x^T dz``, ``db = sum_n dz_n``. A diverged loss is NaN.
    """
    w, b, v, v0 = network
    speeds = [np.zeros_like(p) for p in network]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            z = x @ w + b  # (starts, n, units)
            h = z * (1 - z)
            error = np.subtract((h @ v + v0)[:, :, 0].T, y[:, None], order="C")  # (n, starts)
            dy = (error * (1 / len(x))).T[:, :, None]
            dz = dy * v.swapaxes(1, 2) * (1 - 2 * z)
            db, dv0 = (d.sum(axis=1, keepdims=True) for d in (dz, dy))
            gradients = x.T @ dz, db, h.swapaxes(1, 2) @ dy, dv0
            for p, speed, gradient in zip(network, speeds, gradients, strict=True):
                speed *= 0.9
                speed += gradient
                p -= lr * speed
        z = x @ w + b
        return mean_loss((z * (1 - z) @ v + v0)[:, :, 0].T, y)


def compare(
    target: str, units: int, *, features: int, n: int, starts: int, steps: int, lr: float, seed: int
) -> dict[str, float]:
    """Return the loss of least squares, and those of gradient descent from all starts."""
    rng, generic = np.random.default_rng(seed), target == "generic"
    c = random_c(features, features if generic else features - 1, generic, rng)
    x, noise = rng.normal(size=(n, features)), rng.normal(size=n)
    q, _ = np.linalg.qr(phi(x))
    y = phi(x) @ c + 0.1 * (noise - q @ (q.T @ noise))  # orthogonal: least squares finds c
    optimum = float(mean_loss(phi(x) @ least_squares(x, y)[:, None], y)[0])
    network = draw_starts(features, units, starts, np.random.default_rng([seed, units]))
    losses = descend(x, y, network, steps, lr)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise FloatingPointError(f"all {starts} starts diverged at learning rate {lr:g}")
    best, median = float(finite.min()), float(np.median(finite))
    figures = {"least_squares": optimum, "best": best, "median": median, "gap": best - optimum}
    return {**figures, "diverged": starts - len(finite), "needed": units_needed(c)}


def report_fits(results: list[Result], features: int, out: Path) -> None:
    """Print, write and draw the gaps between gradient descent and least squares."""
    columns, panels, sentences = ("least_squares", "best", "median", "gap"), [], []
    title = f"half the mean squared error, D = {features}"
    table = Table(["target", "units", *columns, "diverged"], title)
    for target, words in TARGETS.items():
        found = {r.point["units"]: r for r in results if r.point["target"] == target}
        for units, r in found.items():
            cells = [r.error, "", "", ""] if r.error else [f"{r.values[k]:.3e}" for k in columns]
            table.add(target, units, *cells, r.values.get("diverged"))
        table.end_group()
        fits = {units: r.values for units, r in found.items() if not r.error}
        if not fits:
            continue
        needed = next(iter(fits.values()))["needed"]
        reached = [k for k, v in fits.items() if v["gap"] < NEAR * v["least_squares"]]
        least = f"with {reached[0]} units or more" if reached else "with no number of units here"
        answer = f"the best start reaches the global minimum {least}; {needed} are needed."
        sentences.append(f"{target} ({words}): {answer}")
        curves = {}
        for name in ("best", "median"):
            above = [max(v[name] - v["least_squares"], 1e-17) for v in fits.values()]
            curves[f"{name} of all starts"] = list(fits), above
        axes = "hidden units K", "loss above least squares", f"{words}\n{needed} units needed"
        panels.append(Panel(curves, *axes, list(fits), ylog=True))
    table.show()
    table.write(out / "gaps")
    if panels:
        heading = f"gradient descent with momentum, D = {features}"
        line_plot(out / "gaps.png", *panels, title=heading)
    answers.write(out, {"gaps": sentences})


def report_units(features: int, starts: int, seed: int, out: Path) -> None:
    """Print and write the units that each kind of c needs, and the best fits with fewer."""
    columns = ["rank", "linear_part", "units", "error", "one_less", "its_largest", "two_less"]
    table = Table(columns, f"distance to a random c, D = {features}: smallest of {starts} starts")
    rng, kinds = np.random.default_rng(seed), [(0, False)]
    kinds += [(rank, inside) for rank in range(1, features) for inside in (True, False)]
    for rank, inside in [*kinds, (features, True)]:
        c = random_c(features, rank, inside, rng)
        need = units_needed(c)
        error = np.abs(fold(unfold(c, need)) - c).max()
        near, largest = distances(c, need - 1, starts, 200, seed)
        figures = [error, near.min(), largest[near.argmin()]]
        if not inside:
            figures.append(distances(c, need - 2, starts, 200, seed)[0].min())
        cells = [f"{figure:.1e}" for figure in figures]
        table.add(rank, "inside" if inside else "outside", need, *cells, *[""] * inside)
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
    options = {key: getattr(args, key) for key in ("features", "starts", "steps", "lr", "seed")}
    grid = Grid(target=list(TARGETS), units=list(range(1, args.features + 2)))
    results = run_points(grid, partial(compare, n=args.examples, **options), args)
    report_fits(results, args.features, args.out)
    report_units(min(args.features, 3), 4 * args.starts, args.seed, args.out)
    print(f"wrote the tables and a picture to {args.out}/")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
