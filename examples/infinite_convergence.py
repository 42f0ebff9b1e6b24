"""Show that wide networks become the kernels of infinite_width.py.

First the kernels of sampled networks: the error of their mean over N networks falls as one over the
root of N. Then networks of growing width, trained by gradient descent on all examples at once, on
the squared error, beside the exact outputs of an infinitely wide one after the same steps: the
distance falls as one over the root of the width.
"""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.data import load_data, note_generated
from homework.flags import add_axis, add_number
from homework.runs import single_run
from infinite_width import KERNELS, kernels, pixels

from minidl import (
    SGD,
    Dataset,
    History,
    Layer,
    Parameter,
    ReLU,
    Sequential,
    SquaredError,
    fit,
    outputs,
)
from minidl.checks import Array, Backward
from minidl.files import as_path
from minidl.view.cli import Parser, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

Options = tuple[int, float, float]
"""Hidden layers, sw2 and sb2."""
NEAR = 0.1
"""For the answers: a power that is one over the root, -1/2."""
Lines = dict[str, list[float]]
Curves = dict[str, tuple[Sequence[float], Sequence[float]]]


class Scaled(Layer):
    """A linear layer whose parameters are standard normal, and whose factors are outside them.

    forward: ``y = sw / sqrt(in) x W + sb b``

    backward: ``dW = sw / sqrt(in) x' dy``, ``db = sb sum_n dy``, ``dx = sw / sqrt(in) dy W'``

    So one learning rate suits every width. ``sb = 0`` leaves the bias out.
    """

    skips_input_grad = True

    def __init__(self, n_in: int, n_out: int, sw2: float, sb2: float, rng: np.random.Generator):
        self.in_features, self.scale, self.sb = n_in, np.sqrt(sw2 / n_in), np.sqrt(sb2)
        self.weight = Parameter(rng.normal(size=(n_in, n_out)))
        if sb2:
            self.bias = Parameter(rng.normal(size=n_out))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = x @ (self.scale * self.weight.value)
        if self.sb:
            y += self.sb * self.bias.value

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            self.weight.grad = self.scale * (x.T @ dy)
            if self.sb:
                self.bias.grad = self.sb * dy.sum(axis=0)
            return self.scale * (dy @ self.weight.value.T) if input_grad else None

        return y, backward


def network(
    d: int, width: int, k: int, layers: int, sw2: float, sb2: float, seed: Sequence[int]
) -> Sequential:
    """Return a network whose kernels go to those of ``infinite_width.kernels``."""
    rng = np.random.default_rng(seed)
    hidden: list[Layer] = []
    for i in range(layers):
        hidden += [Scaled(width if i else d, width, sw2, sb2, rng), ReLU()]
    return Sequential(*hidden, Scaled(width, k, 1.0, 0.0, rng))


def sampled_kernels(model: Sequential, x: Array) -> tuple[Array, Array]:
    """Return h h' / width of the last hidden layer, and the products of the outputs' gradients."""
    h = Sequential(*model.layers[:-1])(x)
    gradients = []
    for row in x:
        _, backward = model.forward(row[None], train=True)
        backward(np.ones((1, 1)))
        gradients.append(model.grad.copy())
    g = np.array(gradients)
    return h @ h.T / h.shape[1], g @ g.T


def distance(found: Array, exact: Array) -> float:
    """Return |found - exact| / |exact|, with Frobenius norms."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the straight line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class Exact:
    """Gradient descent from outputs 0 on a network of infinite width, after any number of steps.

    With the NTK K = V diag(w) V', each step multiplies the error along an eigenvector by
    ``1 - rate w / n``. So ``f_t(z) = k(z, x) V ((1 - (1 - rate w / n)^t) / w) V'y``. The rate makes
    the first factor 0, which is half of the largest stable one.
    """

    def __init__(self, x: Array, y: Array, layers: int, sw2: float, sb2: float):
        self.x, self.options = x, (layers, sw2, sb2)
        self.w, self.v = np.linalg.eigh(kernels(x, x, *self.options)[1])
        self.rate, self.y = len(x) / float(self.w[-1]), self.v.T @ y

    def left(self, steps: int) -> Array:
        """Return the share of the error that is left along each eigenvector: (n, 1)."""
        share: Array = (1 - self.rate * self.w / len(self.x)) ** steps
        return share[:, None]

    def loss(self, steps: int) -> float:
        """Return half the mean squared error at the training examples."""
        return float(np.sum((self.left(steps) * self.y) ** 2) / (2 * len(self.x)))

    def outputs(self, z: Array, steps: int) -> Array:
        """Return the outputs at new examples."""
        alpha = self.v @ ((1 - self.left(steps)) / self.w[:, None] * self.y)
        found: Array = kernels(z, self.x, *self.options)[1] @ alpha
        return found


def train(
    model: Sequential, x: Array, y: Array, z: Array, rate: float, steps: Sequence[int]
) -> tuple[list[tuple[int, Array]], list[float]]:
    """Return the outputs at z after each of ``steps``, and the loss before every step.

    The initial outputs are subtracted at z, and added to y, which is the same for the training.
    """
    before, data = outputs(model, z), Dataset((x, y + outputs(model, x)))
    optimizer, history, found = SGD(model, rate), History(), []
    options: dict[str, Any] = {"batch_size": len(x), "rng": 0, "parts": ()}
    for until in steps:  # with a history, fit goes on after the last step in it
        fit(model, data, SquaredError(), optimizer, epochs=until, history=history, **options)
        found.append((until, outputs(model, z) - before))
    return found, history.column("train_loss")[1:]


def sample(x: Array, numbers: Sequence[int], width: int, options: Options) -> Lines:
    """Return the distance of the mean kernel of N networks to the exact one, for each N.

    The root mean square over all disjoint sets of N among the largest number of networks.
    """
    exact, most = kernels(x, x, *options), max(numbers)
    models = (network(x.shape[1], width, 1, *options, [0, i]) for i in range(most))
    sampled = np.array([sampled_kernels(model, x) for model in models])
    errors: Lines = {}
    for i, name in enumerate(KERNELS):
        for n in numbers:
            means = sampled[: most // n * n, i].reshape(-1, n, len(x), len(x)).mean(axis=1)
            square = np.mean([distance(mean, exact[i]) ** 2 for mean in means])
            errors.setdefault(name, []).append(float(np.sqrt(square)))
    return errors


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", default="letters", metavar="PATH", help="course .npz or folder of IDX files")
    add_number(parser, "--rows", 500, "training examples, and test examples")
    add_axis(parser, "--widths", [64, 256, 1024, 4096])
    add_axis(parser, "--steps", [1, 10, 50])
    add_axis(parser, "--networks", [1, 4, 16, 64, 256])
    add_number(parser, "--seeds", 3, "networks of each width")
    add_number(parser, "--layers", 1, "hidden layers")
    add_number(parser, "--sw2", 2.0, "variance of a weight times the inputs", low=0, open_low=True)
    add_number(parser, "--sb2", 0.0, "variance of a bias", low=0)
    add(
        "--out",
        type=as_path,
        default=Path("runs/infinite_convergence"),
        help="folder of the results",
    )
    args = parser.parse_args()
    options: Options = args.layers, args.sw2, args.sb2
    widths, steps = sorted(args.widths), sorted(set(args.steps))
    dataset = load_data(args.data, full=args.data != "letters")
    dataset = dataset.sample(train=args.rows, test=args.rows)
    print(dataset, flush=True)
    note_generated(dataset, "--data PATH")
    x, z, k = pixels(dataset.train), pixels(dataset.splits["test"]), int(dataset.classes or 0)
    y = np.eye(k)[dataset.train.y]
    with single_run(args, dataset, names=()):
        errors = sample(x[:10], args.networks, widths[0], options)
        exact = Exact(x, y, *options)
        wanted = {step: exact.outputs(z, step) for step in steps}
        distances: Lines = {f"step {step}": [] for step in steps}
        table = Table(["width", "seed", *distances], f"{dataset.title}: distance to infinite width")
        losses = {}
        for width in widths:
            found = []
            for seed in range(args.seeds):
                model = network(x.shape[1], width, k, *options, [width, seed])
                after, losses[width] = train(model, x, y, z, exact.rate, steps)
                found.append([distance(f, wanted[step]) for step, f in after])
                table.add(width, seed, *found[-1])
            for label, mean in zip(distances, np.mean(found, axis=0), strict=True):
                distances[label].append(float(mean))
            print(f"width {width}: {distances}", flush=True)
        slopes = {label: slope(widths, values) for label, values in distances.items()}
        table.add("slope", "", *slopes.values())
        table.show()
        table.write(args.out / "distances")
        means = Table(["kernel", *map(str, args.networks), "slope"], "distance of N networks' mean")
        for name, values in errors.items():
            means.add(name, *values, slope(args.networks, values))
        means.show()
        means.write(args.out / "kernels")
        draw(args, errors, distances, losses, exact, dataset.title)
        root = {"The mean kernel": {k: slope(args.networks, v) for k, v in errors.items()}}
        root["The network"] = slopes
        sentences = [
            f"{what}, {label}: the distance falls with the power {power:.2f}, "
            + ("as one over the root." if abs(power + 0.5) < NEAR else "not as one over the root.")
            for what, powers in root.items()
            for label, power in powers.items()
        ]
        answers.write(args.out, {"convergence": sentences})
    print(f"wrote the tables and the picture to {args.out}{os.sep}")


def draw(
    args: Namespace,
    errors: Lines,
    distances: Lines,
    losses: dict[int, list[float]],
    exact: Exact,
    title: str,
) -> None:
    """Draw the errors of sampled kernels, the distances to infinite width, and the training."""
    widths, half = sorted(args.widths), "slope -0.5"

    def panel(x: list[int], lines: Lines, xlabel: str, ylabel: str, heading: str) -> Panel:
        curves: Curves = {f"{k} (slope {slope(x, v):.2f})": (x, v) for k, v in lines.items()}
        start = max(values[0] for values in lines.values())
        curves[half] = x, [start * (x[0] / number) ** 0.5 for number in x]
        return Panel(curves, xlabel, ylabel, heading, x, ylog=True, dashed=[half])

    heading = f"kernels of networks of width {widths[0]}"
    words = "number of networks", "distance of their mean kernel", heading
    sampled = panel(args.networks, errors, *words)
    words = "width (hidden units)", "distance of the test outputs", "after gradient descent"
    trained = panel(widths, distances, *words)
    line_plot(args.out / "convergence", sampled, trained, title=title)
    limit = "infinite width, exact"
    curves: Curves = {f"width {w}": (range(len(v)), v) for w, v in losses.items()}
    steps = range(max(args.steps))
    curves[limit] = steps, [exact.loss(step) for step in steps]
    words = "step", "half the mean squared error", f"{title}\ntraining on all examples at once"
    line_plot(args.out / "training", Panel(curves, *words, dashed=[limit]))


if __name__ == "__main__":
    run_main(main)
