"""Losses, their derivatives and where they are convex (Questions 1, 2.1 and 3.2a of 2021-22).

The sigmoid, logistic loss, squared error and multinomial logistic loss; their gradients and
Hessians beside finite differences; convexity along random segments, kept by an affine map and lost
by z = sin x; a trained network without activations and the linear map that equals it. The proofs
are in docs/convexity.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from homework.flags import add_number

import minidl
from minidl.checks import Array
from minidl.files import as_path
from minidl.losses import hessian
from minidl.view.cli import Parser, run_main
from minidl.view.plots import Panel, figure, line_plot, save
from minidl.view.tables import Table


def draw_scalar_functions(out: Path) -> None:
    """Draw the sigmoid and the logistic loss of one logit, with their derivatives."""
    z, loss = np.linspace(-6, 6, 241), minidl.BinaryLogistic("sum")
    sigmoid, backward = minidl.Sigmoid().forward(z[:, None])
    curves = {"sigmoid(z)": sigmoid, "derivative s (1 - s)": backward(np.ones_like(sigmoid))}
    panels = {"sigmoid": curves}
    for label in (1, -1):
        y = np.full(len(z), label)
        panels[f"logistic loss, label {label:+d}"] = {
            "loss (nats)": np.array([[loss(t[None, None], y[:1])[0]] for t in z]),
            "first derivative": loss(z[:, None], y)[1],
            "second derivative": loss.second_derivative(z[:, None], y),
        }
    drawn = [
        Panel({name: (z, v[:, 0]) for name, v in curves.items()}, "z", "value", title)
        for title, curves in panels.items()
    ]
    line_plot(out / "sigmoid-and-logistic.png", *drawn)


def differences(loss: Any, part: int, z: Array, y: Array, steps: Array) -> Array:
    """Return derivatives of the loss (part 0) or its gradient (1), by differences to both sides."""
    pairs = ((loss(z + 1e-5 * step, y)[part], loss(z - 1e-5 * step, y)[part]) for step in steps)
    return np.array([(above - below) / (2 * 1e-5) for above, below in pairs])


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
        matrices, few, labels = hessian(loss, z, y), z[:50], y[:50]
        entries = np.eye(few.size).reshape(-1, *few.shape)
        slopes = differences(loss, 0, few, labels, entries)
        rows = differences(loss, 1, z, y, np.eye(size))
        first = np.abs(loss(few, labels)[1] - slopes.reshape(few.shape)).max()
        second = np.abs(matrices - np.moveaxis(rows, 0, -1)).max()
        eigenvalues = np.linalg.eigvalsh(matrices)
        cells = first, second, eigenvalues.min(), eigenvalues.max()
        table.add(name, *(f"{cell:.1e}" for cell in cells))
    table.show()


def check_convexity(rng: np.random.Generator, segments: int, out: Path) -> None:
    """Print the largest violation of convexity over random segments, and find one for sin x."""
    x, y, target = rng.normal(size=(8, 3)), rng.integers(0, 4, 8), rng.normal(size=(8, 4))
    loss = minidl.CrossEntropy()

    def logits(theta: Array) -> Array:
        return x @ theta[:12].reshape(3, 4) + theta[12:]

    cases: dict[str, tuple[Callable[[Array], float], int]] = {
        "squared error of W x + b": (lambda t: minidl.SquaredError()(logits(t), target)[0], 16),
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
    draw_surface(f, a, b, out)


def draw_surface(f: Callable[[Array], float], a: Array, b: Array, out: Path) -> None:
    """Draw the loss of z = sin x as a surface, and along the segment from a to b."""
    limit, steps = max(float(np.abs([a, b]).max()) + 0.5, np.pi), np.linspace(0, 1, 60)
    u, v = np.meshgrid(*[np.linspace(-limit, limit, 81)] * 2)
    points = a + steps[:, None] * (b - a)
    along, chord = np.array([f(p) for p in points]), f(a) + steps * (f(b) - f(a))
    picture = figure(11.5, 4.8)
    surface, line = picture.add_subplot(1, 2, 1, projection="3d"), picture.add_subplot(1, 2, 2)
    heights = np.array([f(p) for p in np.stack([u.ravel(), v.ravel()], axis=1)]).reshape(u.shape)
    surface.plot_surface(u, v, heights, cmap="viridis", alpha=0.6, linewidth=0)
    surface.set(xlabel="x1", ylabel="x2", zlabel="loss (nats)", title="label 1, logits sin x")
    surface.view_init(elev=50, azim=-20)
    curves = {"loss along the red segment": ("r", along), "chord between its ends": ("k--", chord)}
    for label, (style, values) in curves.items():
        surface.plot(*points.T, values, style)
        line.plot(steps, values, style, label=label)
    line.set(xlabel="position on the segment", ylabel="loss (nats)", title="above the chord")
    line.set_ylim(0, 1.35 * max(along))
    line.grid(alpha=0.3)
    line.legend(loc="upper left")
    title = "multinomial logistic loss of z = sin x: not convex in x"
    picture.suptitle(title)
    description = f"{title}. The loss rises above the chord between two points of its surface."
    save(picture, out / "sine-surface.png", description)


def show_collapse(rng: np.random.Generator, epochs: int, out: Path) -> None:
    """Train a network without activations and one with ReLU on classes that no line separates.

    Linear layers in turn are one: (x W1 + b1) W2 + b2 = x (W1 W2) + (b1 W2 + b2).
    """
    x, loss = rng.normal(size=(1200, 2)), minidl.CrossEntropy()
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    dataset = minidl.Dataset((x[:800], y[:800]), (x[800:], y[800:]), (x[800:], y[800:]))
    layers, others = (
        [minidl.Linear(2, 32), minidl.Linear(32, 16), minidl.Linear(16, 2)] for _ in range(2)
    )
    deep = minidl.Sequential(*layers, rng=0, dtype="float64")
    relu = minidl.Sequential(
        others[0], minidl.ReLU(), others[1], minidl.ReLU(), others[2], rng=0, dtype="float64"
    )
    for model in (deep, relu):
        minidl.fit(model, dataset, loss, minidl.Adam(model, 1e-2), epochs=epochs, rng=0)
    weight, bias, one = np.eye(2), np.zeros(2), minidl.Linear(2, 2, rng=0, dtype="float64")
    for layer in layers:
        weight, bias = weight @ layer.weight.value, layer(bias[None])[0]
    one.load_state_dict({"weight": weight, "bias": bias})
    test = dataset.splits["test"]
    names = "three linear layers", "their product, one linear layer", "the same with ReLU"
    models: dict[str, minidl.Layer] = dict(zip(names, (deep, one, relu), strict=True))
    table = Table(["network", "parameters", "test accuracy"], "the sign of x1 x2, two classes")
    u, v = np.meshgrid(*[np.linspace(-3, 3, 161)] * 2)
    picture = figure(4.0 * len(models), 4.0)
    for axes, (name, network) in zip(picture.subplots(1, 3), models.items(), strict=True):
        table.add(name, network.theta.size, minidl.evaluate(network, test, loss)["accuracy"])
        shown = network(np.stack([u.ravel(), v.ravel()], axis=1)).argmax(axis=1).reshape(u.shape)
        axes.contourf(u, v, shown, levels=[-0.5, 0.5, 1.5], colors=["#c6dbef", "#fdd0a2"])
        for k, colour in enumerate(("tab:blue", "tab:orange")):
            axes.plot(*test.x[test.y == k].T, ".", color=colour, markersize=3)
        axes.set(xlabel="x1", ylabel="x2", title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    table.show()
    gap = np.abs(minidl.outputs(deep, test) - minidl.outputs(one, test)).max()
    print(f"largest difference between the outputs of the first two: {gap:.1e}")
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
    print("[1/4] the sigmoid and the logistic loss", flush=True)
    draw_scalar_functions(args.out)
    print("[2/4] gradients and Hessians", flush=True)
    check_derivatives(rng, args.samples)
    print("[3/4] convexity", flush=True)
    check_convexity(rng, args.segments, args.out)
    print("[4/4] a network without activations", flush=True)
    show_collapse(rng, args.epochs, args.out)
    print(f"wrote sigmoid-and-logistic.png, sine-surface.png and collapse.png to {args.out}/")


if __name__ == "__main__":
    run_main(main)
