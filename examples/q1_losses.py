"""Losses, their derivatives and where they are convex (Questions 1, 2.1 and 3.2a of 2021-22).

The sigmoid, logistic loss, squared error and multinomial logistic loss; their gradients and
Hessians beside finite differences; convexity along random segments, kept by an affine map and lost
by z = sin x; a trained network without activations and the linear map that equals it. The proofs
are in docs/convexity.md.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework.flags import add_number

from minidl import (
    Adam,
    BinaryLogistic,
    CrossEntropy,
    Dataset,
    Layer,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    SquaredError,
    evaluate,
    fit,
    outputs,
)
from minidl.checks import Array
from minidl.files import as_path
from minidl.losses import TwiceDifferentiable, hessian
from minidl.view.cli import Parser, run_main
from minidl.view.plots import Panel, figure, line_plot, save
from minidl.view.tables import Table

Function = Callable[[Array], float]


def draw_scalar_functions(out: Path) -> None:
    """Draw the sigmoid and the logistic loss of one logit, with their derivatives."""
    z = np.linspace(-6, 6, 241)
    sigmoid, backward = Sigmoid().forward(z[:, None])
    slope = backward(np.ones_like(sigmoid))
    curves = {"sigmoid(z)": (z, sigmoid[:, 0]), "derivative s (1 - s)": (z, slope[:, 0])}
    panels = [Panel(curves, "z", "value", "sigmoid")]
    loss = BinaryLogistic("sum")
    for label in (1, -1):
        y = np.full(len(z), label)
        curves = {
            "loss (nats)": (z, np.array([loss(np.array([[t]]), y[:1])[0] for t in z])),
            "first derivative": (z, loss(z[:, None], y)[1][:, 0]),
            "second derivative": (z, loss.second_derivative(z[:, None], y)[:, 0]),
        }
        panels.append(Panel(curves, "z", "value", f"logistic loss, label {label:+d}"))
    line_plot(out / "sigmoid-and-logistic.png", *panels)


def central_differences(f: Callable[[Array], Any], z: Array, steps: Array) -> Array:
    """Return the derivatives of f at z along the steps, by differences to both sides."""
    eps = 1e-5
    return np.array([(f(z + eps * step) - f(z - eps * step)) / (2 * eps) for step in steps])


def derivatives(loss: TwiceDifferentiable, z: Array, y: Array) -> tuple[float, ...]:
    """Return the largest errors of gradient and Hessian, and the extreme eigenvalues."""
    matrices, few, labels = hessian(loss, z, y), z[:50], y[:50]
    each_entry = np.eye(few.size).reshape(-1, *few.shape)
    slopes = central_differences(lambda t: loss(t, labels)[0], few, each_entry)
    columns = central_differences(lambda t: loss(t, y)[1], z, np.eye(z.shape[1]))
    first = np.abs(loss(few, labels)[1] - slopes.reshape(few.shape)).max()
    second = np.abs(matrices - np.moveaxis(columns, 0, -1)).max()
    eigenvalues = np.linalg.eigvalsh(matrices)
    return first, second, eigenvalues.min(), eigenvalues.max()


def check_derivatives(rng: np.random.Generator, samples: int) -> None:
    """Print the errors of gradients and Hessians, and the smallest eigenvalue of the Hessians."""
    cases: dict[str, tuple[TwiceDifferentiable, int, Callable[[], Any]]] = {
        "binary logistic": (BinaryLogistic("sum"), 1, partial(rng.choice, [-1, 1], samples)),
        "squared error": (SquaredError("sum"), 4, partial(rng.normal, size=(samples, 4))),
        "multinomial logistic": (CrossEntropy("sum"), 6, partial(rng.integers, 0, 6, samples)),
    }
    columns = ["loss", "gradient", "Hessian", "smallest eigenvalue", "largest"]
    table = Table(columns, f"largest difference from finite differences; {samples} random logits")
    for name, (loss, size, draw_targets) in cases.items():
        z, y = 5 * rng.normal(size=(samples, size)), draw_targets()
        table.add(name, *(f"{cell:.1e}" for cell in derivatives(loss, z, y)))
    table.show()


def worst_segment(
    f: Function, size: int, rng: np.random.Generator, segments: int, scale: float
) -> tuple[float, Array, Array]:
    """Return the largest f(midpoint) - mean of f at the ends, and the ends of that segment.

    A convex function has no positive one.
    """
    worst = -np.inf, np.zeros(size), np.zeros(size)
    for _ in range(segments):
        a, b = scale * rng.normal(size=(2, size))
        excess = f((a + b) / 2) - (f(a) + f(b)) / 2
        if excess > worst[0]:
            worst = excess, a, b
    return worst


def check_convexity(rng: np.random.Generator, segments: int, out: Path) -> None:
    """Print the largest violation of convexity over random segments, and find one for sin x."""
    x, y, target = rng.normal(size=(8, 3)), rng.integers(0, 4, 8), rng.normal(size=(8, 4))

    def logits(theta: Array) -> Array:
        return x @ theta[:12].reshape(3, 4) + theta[12:]

    def through_sine(x: Array) -> float:
        return CrossEntropy()(np.sin(x)[None], np.array([0]))[0]

    cases: dict[str, tuple[Function, int]] = {
        "squared error of W x + b": (lambda t: SquaredError()(logits(t), target)[0], 16),
        "multinomial logistic of W x + b": (lambda t: CrossEntropy()(logits(t), y)[0], 16),
        "multinomial logistic of sin x": (through_sine, 2),
    }
    table = Table(["function", "largest excess", "convex there"], f"{segments} random segments")
    for name, (f, size) in cases.items():
        excess, a, b = worst_segment(f, size, rng, segments, 2.0)
        table.add(name, f"{excess:.3g}", "yes" if excess <= 1e-12 else "no")
    table.show()
    print("excess: f(midpoint) - mean of f at the ends, which is never positive if f is convex")
    print("counter-example for z = sin x, label 1:")
    for where, point in (("at one end", a), ("at the other end", b), ("midway", (a + b) / 2)):
        print(f"  {where:<17}x = ({point[0]:6.3f}, {point[1]:6.3f})  loss {f(point):.4f}")
    draw_surface(through_sine, a, b, out)


def draw_surface(f: Function, a: Array, b: Array, out: Path) -> None:
    """Draw the loss of z = sin x as a surface, and along the segment from a to b."""
    limit = max(float(np.abs([a, b]).max()) + 0.5, np.pi)
    grid = np.linspace(-limit, limit, 81)
    values = np.array([[f(np.array([u, v])) for u in grid] for v in grid])
    steps = np.linspace(0, 1, 60)
    points = a + steps[:, None] * (b - a)
    along, chord = [f(p) for p in points], f(a) + steps * (f(b) - f(a))
    picture = figure(11.5, 4.8)
    axes = picture.add_subplot(1, 2, 1, projection="3d")
    axes.plot_surface(*np.meshgrid(grid, grid), values, cmap="viridis", alpha=0.6, linewidth=0)
    axes.plot(*points.T, along, color="red")
    axes.plot(*points.T, chord, "k--")
    axes.set(xlabel="x1", ylabel="x2", zlabel="loss (nats)", title="label 1, logits sin x")
    axes.view_init(elev=50, azim=-20)
    axes = picture.add_subplot(1, 2, 2)
    axes.plot(steps, along, color="red", label="loss along the red segment")
    axes.plot(steps, chord, "k--", label="chord between its ends")
    axes.set(xlabel="position on the segment", ylabel="loss (nats)", title="above the chord")
    axes.set_ylim(0, 1.35 * max(along))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    title = "multinomial logistic loss of z = sin x: not convex in x"
    picture.suptitle(title)
    description = f"{title}. The loss rises above the chord between two points of its surface."
    save(picture, out / "sine-surface.png", description)


def collapse(layers: Sequence[Linear]) -> Linear:
    """Return the one linear layer that computes what linear layers compute in turn.

    With rows as examples, (x W1 + b1) W2 + b2 = x (W1 W2) + (b1 W2 + b2).
    """
    weight, bias = np.eye(layers[0].in_features), np.zeros(layers[0].in_features)
    for layer in layers:
        weight, bias = weight @ layer.weight.value, layer(bias[None])[0]
    one = Linear(*weight.shape, rng=0, dtype="float64")
    one.load_state_dict({"weight": weight, "bias": bias})
    return one


def show_collapse(rng: np.random.Generator, epochs: int, out: Path) -> None:
    """Train a network without activations and one with ReLU on classes that no line separates."""
    x = rng.normal(size=(1200, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    dataset = Dataset((x[:800], y[:800]), (x[800:], y[800:]), (x[800:], y[800:]))
    layers, others = ([Linear(2, 32), Linear(32, 16), Linear(16, 2)] for _ in range(2))
    deep = Sequential(*layers, rng=0, dtype="float64")
    relu = Sequential(others[0], ReLU(), others[1], ReLU(), others[2], rng=0, dtype="float64")
    loss = CrossEntropy()
    for model in (deep, relu):
        fit(model, dataset, loss, Adam(model, 1e-2), epochs=epochs, rng=0)
    one = collapse(layers)
    test = dataset.splits["test"]
    gap = float(np.abs(outputs(deep, test) - outputs(one, test)).max())
    models: dict[str, Layer] = {
        "three linear layers": deep,
        "their product, one linear layer": one,
        "the same with ReLU": relu,
    }
    table = Table(["network", "parameters", "test accuracy"], "the sign of x1 x2, two classes")
    for name, network in models.items():
        table.add(name, network.theta.size, evaluate(network, test, loss)["accuracy"])
    table.show()
    print(f"largest difference between the outputs of the first two: {gap:.1e}")
    draw_decisions(models, dataset, out)


def draw_decisions(models: dict[str, Layer], dataset: Dataset, out: Path) -> None:
    """Draw which class each network predicts in the plane, with the test examples."""
    grid = np.linspace(-3, 3, 161)
    u, v = np.meshgrid(grid, grid)
    plane, test = np.stack([u.ravel(), v.ravel()], axis=1), dataset.splits["test"]
    picture = figure(4.0 * len(models), 4.0)
    for axes, (name, model) in zip(picture.subplots(1, len(models)), models.items(), strict=True):
        shown = model(plane).argmax(axis=1).reshape(u.shape)
        axes.contourf(u, v, shown, levels=[-0.5, 0.5, 1.5], colors=["#c6dbef", "#fdd0a2"])
        for k, colour in enumerate(("tab:blue", "tab:orange")):
            axes.plot(*test.x[test.y == k].T, ".", color=colour, markersize=3)
        axes.set(xlabel="x1", ylabel="x2", title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    description = f"The class that each network predicts in the plane: {', '.join(models)}."
    save(picture, out / "collapse.png", description)


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_number(parser, "--samples", 2000, "random logits for the eigenvalues")
    add_number(parser, "--segments", 5000, "random segments for convexity")
    add_number(parser, "--epochs", 30, "of the networks without and with ReLU")
    add_number(parser, "--seed", 0, "of the random numbers", low=0)
    parser.add_argument("--out", type=as_path, default=Path("runs/q1_losses"))
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    steps: dict[str, Callable[[], None]] = {
        "the sigmoid and the logistic loss": lambda: draw_scalar_functions(args.out),
        "gradients and Hessians": lambda: check_derivatives(rng, args.samples),
        "convexity": lambda: check_convexity(rng, args.segments, args.out),
        "a network without activations": lambda: show_collapse(rng, args.epochs, args.out),
    }
    for i, (name, step) in enumerate(steps.items(), start=1):
        print(f"[{i}/{len(steps)}] {name}", flush=True)
        step()
    print(f"wrote sigmoid-and-logistic.png, sine-surface.png and collapse.png to {args.out}/")


if __name__ == "__main__":
    run_main(main)
