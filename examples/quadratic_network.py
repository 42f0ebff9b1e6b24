"""Fit a network with the activation g(z) = z (1 - z) in closed form, and by gradient descent.

With one hidden layer it is c'phi(x), quadratic in its input, see docs/quadratic.md. The loss of
least squares is compared with gradient descent from many starts, by the number of hidden units.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.flags import add_number, script_parser
from homework.quadratic import draw_starts, least_squares, phi, random_c, units_needed
from homework.runs import run_points

from minidl.checks import Array
from minidl.grid.points import Grid, Result, exit_status
from minidl.view.cli import int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

TARGETS = {"generic": "Q invertible", "singular": "rank of Q is D - 1, l outside its range"}
NEAR = 1e-6  # for the answers: the share of a loss by which another one is the same
FIGURES = "least_squares", "best", "median", "gap"


def descend(x: Array, y: Array, networks: Sequence[Array], steps: int, lr: float) -> Array:
    """Train networks in place by gradient descent with momentum 0.9; return their losses.

    Forward: ``z = x w + b``, ``h = z (1 - z)``, ``y = h v + v0``. Backward: ``dv = h^T dy``,
    ``dz = dy v^T (1 - 2 z)``, ``dw = x^T dz``, ``db = sum_n dz_n``. A diverged loss is NaN.
    """
    w, b, v, v0 = networks
    speeds = [np.zeros_like(p) for p in networks]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            z = x @ w + b  # (starts, n, units)
            h = z * (1 - z)
            dy = (h @ v + v0 - y[:, None]) / len(x)
            dz = dy * v.swapaxes(1, 2) * (1 - 2 * z)
            db, dv0 = (d.sum(axis=1, keepdims=True) for d in (dz, dy))
            gradients = x.T @ dz, db, h.swapaxes(1, 2) @ dy, dv0
            for p, speed, gradient in zip(networks, speeds, gradients, strict=True):
                speed[...] = 0.9 * speed + gradient
                p -= lr * speed
        z = x @ w + b
        return np.asarray(np.mean((z * (1 - z) @ v + v0 - y[:, None]) ** 2, axis=(1, 2)) / 2)


def compare(
    target: str, units: int, *, features: int, examples: int, starts: int, seed: int, **flags: Any
) -> dict[str, float]:
    """Return the loss of least squares, and those of gradient descent from all starts."""
    rng, generic = np.random.default_rng(seed), target == "generic"
    c = random_c(features, features if generic else features - 1, generic, rng)
    x, noise = rng.normal(size=(examples, features)), rng.normal(size=examples)
    q, _ = np.linalg.qr(phi(x))
    y = phi(x) @ c + 0.1 * (noise - q @ (q.T @ noise))  # orthogonal: least squares finds c
    optimum = float(np.mean((phi(x) @ least_squares(x, y) - y) ** 2) / 2)
    networks = draw_starts(features, units, starts, np.random.default_rng([seed, units]))
    losses = descend(x, y, networks, **flags)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise FloatingPointError(f"all {starts} starts diverged at learning rate {flags['lr']:g}")
    best, median = float(finite.min()), float(np.median(finite))
    figures = dict(zip(FIGURES, (optimum, best, median, best - optimum), strict=True))
    return {**figures, "diverged": starts - len(finite), "needed": units_needed(c)}


def report(results: list[Result], features: int, out: Path) -> None:
    """Print, write and draw the gaps between gradient descent and least squares."""
    columns, panels, sentences = ["target", "units", *FIGURES, "diverged"], [], []
    table = Table(columns, f"half the mean squared error, D = {features}")
    for target, words in TARGETS.items():
        found = [r for r in results if r.point["target"] == target]
        for r in found:
            figures = [r.error] if r.error else [f"{r.values[k]:.3e}" for k in FIGURES]
            table.add(*r.point.values(), *figures, r.values.get("diverged"))
        table.end_group()
        fits = {r.point["units"]: r.values for r in found if not r.error}
        units, needed = list(fits), next((v["needed"] for v in fits.values()), "unknown")
        reached = [k for k, v in fits.items() if v["gap"] < NEAR * v["least_squares"]]
        least = f"with {reached[0]} units or more" if reached else "with no number of units here"
        answer = f"the best start reaches the global minimum {least}; {needed} are needed."
        sentences += [f"{target} ({words}): {answer}"] if fits else []
        curves = {}
        for name in ("best", "median"):
            above = [max(v[name] - v["least_squares"], 1e-17) for v in fits.values()]
            curves[f"{name} of all starts"] = units, above
        axes = "hidden units K", "loss above least squares", f"{words}\n{needed} units needed"
        panels.append(Panel(curves, *axes, units, ylog=True))
    table.show()
    table.write(out / "gaps")
    heading = f"gradient descent with momentum, D = {features}"
    line_plot(out / "gaps.png", *panels, title=heading)
    answers.write(out, {"gaps": sentences})


def main() -> int:
    parser = script_parser(__doc__, "runs/quadratic_network")
    add_number(parser, "--features", 4, "D")
    add_number(parser, "--examples", 200, "number of examples")
    add_number(parser, "--starts", 50, "random initial values for each number of units")
    add_number(parser, "--steps", 3000, "steps of gradient descent")
    add_number(parser, "--lr", 0.01, "learning rate", low=0, open_low=True)
    add_number(parser, "--seed", 0, "of the data and the initial values", low=0)
    parser.add_argument("--jobs", type=int_argument("jobs"), default=2, help="processes")
    args = parser.parse_args()
    options = {k: v for k, v in vars(args).items() if k not in ("jobs", "out")}
    grid = Grid(target=list(TARGETS), units=list(range(1, args.features + 2)))
    results = run_points(grid, partial(compare, **options), args)
    report(results, args.features, args.out)
    print(f"wrote the table and a picture to {args.out}/")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
