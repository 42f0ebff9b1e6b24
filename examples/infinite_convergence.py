"""Show that wide networks become the kernels of infinite_width.py.

First the error of the mean kernel of N networks, by N. Then, by the width, how far the outputs of
networks are from those of an infinitely wide one, after the same steps of gradient descent.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from homework import answers
from homework.flags import add_axis, add_number, kernel_parser, load_data, note_generated
from homework.kernels import KERNELS, Exact, kernels, pixels
from homework.runs import single_run

import minidl
from minidl.checks import Array, Backward
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

Lines = dict[str, list[float]]
Options = tuple[int, float, float]  # hidden layers, sw2 and sb2
LIMIT = "infinite width, exact"
NEAR = 0.1  # for the answers: to the power -1/2, which is one over the root


class Scaled(minidl.Layer):
    """A linear layer of standard normal parameters, so that one learning rate suits every width.

    forward: ``y = sw / sqrt(in) x W + sb b``

    backward: ``dW = sw / sqrt(in) x' dy``, ``db = sb sum_n dy``, ``dx = sw / sqrt(in) dy W'``
    """

    skips_input_grad = True

    def __init__(self, n_in: int, n_out: int, sw2: float, sb2: float, rng: np.random.Generator):
        self.in_features, self.scale, self.sb = n_in, np.sqrt(sw2 / n_in), np.sqrt(sb2)
        self.weight = minidl.Parameter(rng.normal(size=(n_in, n_out)))
        self.bias = minidl.Parameter(rng.normal(size=n_out) if sb2 else np.zeros(n_out))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = x @ (self.scale * self.weight.value) + self.sb * self.bias.value

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            self.weight.grad = self.scale * (x.T @ dy)
            self.bias.grad = self.sb * dy.sum(axis=0)
            return self.scale * (dy @ self.weight.value.T) if input_grad else None

        return y, backward


def network(
    d: int, width: int, k: int, layers: int, sw2: float, sb2: float, seed: Sequence[int]
) -> minidl.Sequential:
    """Return a network whose kernels go to those of ``homework.kernels.kernels``."""
    rng = np.random.default_rng(seed)
    hidden: list[minidl.Layer] = []
    for i in range(layers):
        hidden += [Scaled(width if i else d, width, sw2, sb2, rng), minidl.ReLU()]
    return minidl.Sequential(*hidden, Scaled(width, k, 1.0, 0.0, rng))


def sampled_kernels(model: minidl.Sequential, x: Array) -> tuple[Array, Array]:
    """Return h h' / width of the last hidden layer, and the products of the outputs' gradients."""
    h, gradients = minidl.Sequential(*model.layers[:-1])(x), []
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


def train(
    model: minidl.Sequential, x: Array, y: Array, z: Array, rate: float, steps: Sequence[int]
) -> tuple[list[tuple[int, Array]], list[float]]:
    """Return the outputs at z after each of ``steps``, and the loss before every step.

    The initial outputs are subtracted at z, and added to y, which is the same for the training.
    """
    before = minidl.outputs(model, z)
    data = minidl.Dataset((x, y + minidl.outputs(model, x)))
    optimizer, history, found = minidl.SGD(model, rate), minidl.History(), []
    options: dict[str, Any] = {"batch_size": len(x), "rng": 0, "parts": (), "history": history}
    for until in steps:  # with a history, fit goes on after the last step in it
        minidl.fit(model, data, minidl.SquaredError(), optimizer, epochs=until, **options)
        found.append((until, minidl.outputs(model, z) - before))
    return found, history.column("train_loss")[1:]


def sample(x: Array, numbers: Sequence[int], width: int, options: Options) -> Lines:
    """Return the distance of the mean kernel of N networks to the exact one, for each N.

    The root mean square over all disjoint sets of N among the largest number of networks.
    """
    exact, most = kernels(x, x, *options), max(numbers)
    models = (network(x.shape[1], width, 1, *options, [0, i]) for i in range(most))
    sampled = np.array([sampled_kernels(model, x) for model in models])

    def error(i: int, n: int) -> float:
        means = sampled[: most // n * n, i].reshape(-1, n, len(x), len(x)).mean(axis=1)
        return float(np.sqrt(np.mean([distance(mean, exact[i]) ** 2 for mean in means])))

    return {name: [error(i, n) for n in numbers] for i, name in enumerate(KERNELS)}


def main() -> None:
    parser = kernel_parser(__doc__, "runs/infinite_convergence")
    add_number(parser, "--rows", 500, "training examples, and test examples")
    add_axis(parser, "--widths", [64, 256, 1024, 4096])
    add_axis(parser, "--steps", [1, 10, 50])
    add_axis(parser, "--networks", [1, 4, 16, 64, 256])
    add_number(parser, "--seeds", 3, "networks of each width")
    add_number(parser, "--layers", 1, "hidden layers")
    args = parser.parse_args()
    options: Options = args.layers, args.sw2, args.sb2
    widths, steps = sorted(args.widths), sorted(set(args.steps))
    whole = load_data(args.data, full=args.data != "letters")
    dataset = whole.sample(train=args.rows, test=args.rows)
    print(dataset, flush=True)
    note_generated(dataset, "--data PATH")
    x, z, k = pixels(dataset.train), pixels(dataset.splits["test"]), int(dataset.classes or 0)
    y = np.eye(k)[dataset.train.y]
    with single_run(args, dataset, names=()):
        errors = sample(x[:10], args.networks, widths[0], options)
        exact = Exact(x, y, *options)
        wanted = [exact.outputs(z, step) for step in steps]
        labels = [f"step {step}" for step in steps]
        table = Table(["width", "seed", *labels], f"{dataset.title}: distance to infinite width")
        distances, losses = Lines(), Lines()
        for width in widths:
            for seed in range(args.seeds):
                model = network(x.shape[1], width, k, *options, [width, seed])
                after, losses[f"width {width}"] = train(model, x, y, z, exact.rate, steps)
                found = [distance(f, w) for (_, f), w in zip(after, wanted, strict=True)]
                table.add(width, seed, *found)
                for label, value in zip(labels, found, strict=True):
                    distances.setdefault(label, []).append(value)
        losses[LIMIT] = [exact.loss(step) for step in range(steps[-1])]
        means = {
            k: np.reshape(v, (len(widths), -1)).mean(axis=1).tolist() for k, v in distances.items()
        }
        table.add("slope", "", *(slope(widths, values) for values in means.values()))
        sampled = Table(
            ["kernel", *map(str, args.networks), "slope"], "distance of N networks' mean"
        )
        for name, values in errors.items():
            sampled.add(name, *values, slope(args.networks, values))
        for name, one in {"distances": table, "kernels": sampled}.items():
            one.show()
            one.write(args.out / name)
        heading = f"kernels of networks of width {widths[0]}"
        words = "number of networks", "distance of their mean kernel", heading
        more = "width (hidden units)", "distance of the test outputs", "after gradient descent"
        panels = [by_root(args.networks, errors, words), by_root(widths, means, more)]
        line_plot(args.out / "convergence", *panels, title=dataset.title)
        curves = {label: (range(len(v)), v) for label, v in losses.items()}
        title = f"{dataset.title}\ntraining on all examples at once"
        panel = Panel(curves, "step", "half the mean squared error", title, dashed=[LIMIT])
        line_plot(args.out / "training", panel)
        powers = {f"The mean kernel, {k}": slope(args.networks, v) for k, v in errors.items()}
        powers |= {f"The network, {k}": slope(widths, v) for k, v in means.items()}
        sentences = [
            f"{label}: the distance falls with the power {power:.2f}, "
            f"{'as' if abs(power + 0.5) < NEAR else 'not as'} one over the root."
            for label, power in powers.items()
        ]
        answers.write(args.out, {"convergence": sentences})
    print(f"wrote the tables and the picture to {args.out}/")


def by_root(x: Sequence[float], lines: Lines, words: tuple[str, str, str]) -> Panel:
    """Return a panel of lines that fall, beside one over the root of x."""
    curves: dict[str, Any] = {f"{k} (slope {slope(x, v):.2f})": (x, v) for k, v in lines.items()}
    start, half = max(values[0] for values in lines.values()), "slope -0.5"
    curves[half] = x, [start * (x[0] / number) ** 0.5 for number in x]
    return Panel(curves, *words, x, ylog=True, dashed=[half])


if __name__ == "__main__":
    run_main(main)
