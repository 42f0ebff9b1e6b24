"""Losses, their derivatives and where they are convex (Questions 1, 2.1 and 3.2a of 2021-22).

Gradients and Hessians beside finite differences; convexity, kept by an affine map and lost by sin;
a network without activations and the linear map that equals it. Proofs: docs/convexity.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from homework.figures import check_hessian, draw_regions, draw_segment
from homework.flags import add_number, script_parser
from homework.models import product

import minidl
from minidl.checks import Array
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table


def draw_scalar_functions(path: Path) -> None:
    """Draw the sigmoid and the logistic loss of one logit, with their derivatives."""
    z, loss = np.linspace(-6, 6, 241)[:, None], minidl.BinaryLogistic("sum")
    y, backward = minidl.Sigmoid().forward(z)
    panels = {"sigmoid": {"sigmoid(z)": y, "derivative s (1 - s)": backward(np.ones_like(y))}}
    for label in (1, -1):
        labels = np.full(len(z), label)
        panels[f"logistic loss, label {label:+d}"] = {
            "loss (nats)": np.array([[loss(t[None], labels[:1])[0]] for t in z]),
            "first derivative": loss(z, labels)[1],
            "second derivative": loss.second_derivative(z, labels),
        }
    curves = {k: {name: (z[:, 0], v[:, 0]) for name, v in p.items()} for k, p in panels.items()}
    line_plot(path, *(Panel(some, "z", "value", title) for title, some in curves.items()))


def check_derivatives(rng: np.random.Generator, n: int) -> None:
    """Print the errors of gradients and Hessians, and the extreme eigenvalues of the Hessians."""
    cases: dict[str, tuple[Any, int, Callable[[], Array]]] = {
        "binary logistic": (minidl.BinaryLogistic("sum"), 1, lambda: rng.choice([-1, 1], n)),
        "squared error": (minidl.SquaredError("sum"), 4, lambda: rng.normal(size=(n, 4))),
        "multinomial logistic": (minidl.CrossEntropy("sum"), 6, lambda: rng.integers(0, 6, n)),
    }
    columns = ["loss", "gradient", "Hessian", "smallest eigenvalue", "largest"]
    table = Table(columns, f"largest difference from finite differences; {n} random logits")
    for name, (loss, size, draw_targets) in cases.items():
        z, y = 5 * rng.normal(size=(n, size)), draw_targets()
        table.add(name, *(f"{figure:.1e}" for figure in check_hessian(loss, z, y)))
    table.show()


def check_convexity(rng: np.random.Generator, segments: int, path: Path) -> None:
    """Print the largest violation of convexity over random segments, and draw that of sin x."""
    x, y, target = rng.normal(size=(8, 3)), rng.integers(0, 4, 8), rng.normal(size=(8, 4))
    loss, square = minidl.CrossEntropy(), minidl.SquaredError()

    def logits(theta: Array) -> Array:
        return x @ theta[:12].reshape(3, 4) + theta[12:]

    cases: dict[str, tuple[Callable[[Array], float], int]] = {
        "squared error of W x + b": (lambda t: square(logits(t), target)[0], 16),
        "multinomial logistic of W x + b": (lambda t: loss(logits(t), y)[0], 16),
        "multinomial logistic of sin x": (lambda t: loss(np.sin(t)[None], y[:1] * 0)[0], 2),
    }
    table = Table(["function", "largest excess", "convex there"], f"{segments} random segments")
    for name, (f, size) in cases.items():
        ends = 2.0 * rng.normal(size=(segments, 2, size))
        excess = [f((a + b) / 2) - (f(a) + f(b)) / 2 for a, b in ends]
        a, b = ends[np.argmax(excess)]
        table.add(name, f"{max(excess):.3g}", "yes" if max(excess) <= 1e-12 else "no")
    table.show()
    print("excess: f(midpoint) - mean of f at the ends, which is never positive if f is convex")
    print("counter-example for z = sin x, label 1:")
    for where, point in (("at one end", a), ("at the other end", b), ("midway", (a + b) / 2)):
        print(f"  {where:<17}x = ({point[0]:6.3f}, {point[1]:6.3f})  loss {f(point):.4f}")
    draw_segment(path, f, a, b, "multinomial logistic loss of z = sin x: not convex in x")


def show_collapse(rng: np.random.Generator, epochs: int, path: Path) -> None:
    """Train a network without activations and one with ReLU on classes that no line separates."""
    x, loss = rng.normal(size=(1200, 2)), minidl.CrossEntropy()
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    dataset = minidl.Dataset((x[:800], y[:800]), (x[800:], y[800:]), (x[800:], y[800:]))
    a, b, c = minidl.Linear(2, 32), minidl.Linear(32, 16), minidl.Linear(16, 2)
    deep = minidl.Sequential(a, b, c, rng=0, dtype="float64")
    hidden = minidl.Linear(2, 32), minidl.ReLU(), minidl.Linear(32, 16), minidl.ReLU()
    relu = minidl.Sequential(*hidden, minidl.Linear(16, 2), rng=0, dtype="float64")
    for model in (deep, relu):
        minidl.fit(model, dataset, loss, minidl.Adam(model, 1e-2), epochs=epochs, rng=0)
    one = product(a, b, c)
    names = "three linear layers", "their product, one linear layer", "the same with ReLU"
    networks, test = dict(zip(names, (deep, one, relu), strict=True)), dataset.splits["test"]
    table = Table(["network", "parameters", "test accuracy"], "the sign of x1 x2, two classes")
    for name, network in networks.items():
        table.add(name, network.theta.size, minidl.evaluate(network, test, loss)["accuracy"])
    table.show()
    gap = np.abs(minidl.outputs(deep, test) - minidl.outputs(one, test)).max()
    print(f"largest difference between the outputs of the first two: {gap:.1e}")
    draw_regions(path, networks, test)


def main() -> None:
    parser = script_parser(__doc__, "runs/q1_losses")
    add_number(parser, "--samples", 2000, "random logits for the eigenvalues")
    add_number(parser, "--segments", 5000, "random segments for convexity")
    add_number(parser, "--epochs", 30, "of the networks without and with ReLU")
    add_number(parser, "--seed", 0, "of the random numbers", low=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    draw_scalar_functions(args.out / "sigmoid-and-logistic.png")
    check_derivatives(rng, args.samples)
    check_convexity(rng, args.segments, args.out / "sine-surface.png")
    show_collapse(rng, args.epochs, args.out / "collapse.png")
    print(f"wrote sigmoid-and-logistic.png, sine-surface.png and collapse.png to {args.out}/")


if __name__ == "__main__":
    run_main(main)
