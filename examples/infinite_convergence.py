"""Show that wide networks become the kernels of infinite_width.py.

First the error of the mean kernel of N networks, by N. Then, by the width, how far the outputs of
networks are from those of an infinitely wide one, after the same steps of gradient descent.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from homework import answers
from homework.flags import add_axis, add_number, kernel_parser, load_data, note_generated
from homework.kernels import KERNELS, Exact, kernels, network, pixels, sampled_kernels, train
from homework.runs import single_run

from minidl.checks import Array
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

Lines = dict[str, list[float]]
Options = tuple[int, float, float]  # hidden layers, sw2 and sb2
LIMIT = "infinite width, exact"
NEAR = 0.1  # for the answers: to the power -1/2, which is one over the root


def distance(found: Array, exact: Array) -> float:
    """Return |found - exact| / |exact|, with Frobenius norms."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the straight line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def sample(x: Array, numbers: Sequence[int], width: int, options: Options) -> Lines:
    """Return the distance of N networks' mean kernel to the exact one, over disjoint sets of N."""
    exact, most = kernels(x, x, *options), max(numbers)
    models = (network(x.shape[1], width, 1, *options, [0, i]) for i in range(most))
    sampled = np.array([sampled_kernels(model, x) for model in models])

    def error(i: int, n: int) -> float:
        means = sampled[: most // n * n, i].reshape(-1, n, len(x), len(x)).mean(axis=1)
        return float(np.sqrt(np.mean([distance(mean, exact[i]) ** 2 for mean in means])))

    return {name: [error(i, n) for n in numbers] for i, name in enumerate(KERNELS)}


def by_root(
    what: str, x: Sequence[float], lines: Lines, words: tuple[str, str, str]
) -> tuple[Panel, list[str]]:
    """Return a panel of lines that fall, beside one over the root of x, and what they say."""
    slopes = {name: slope(x, y) for name, y in lines.items()}
    curves: dict[str, Any] = {f"{k} (slope {slopes[k]:.2f})": (x, y) for k, y in lines.items()}
    start, half = max(y[0] for y in lines.values()), "slope -0.5"
    curves[half] = x, [start * (x[0] / number) ** 0.5 for number in x]
    sentences = [
        f"{what}, {name}: the distance falls with the power {power:.2f}, "
        f"{'as' if abs(power + 0.5) < NEAR else 'not as'} one over the root."
        for name, power in slopes.items()
    ]
    return Panel(curves, *words, x, ylog=True, dashed=[half]), sentences


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
    widths, steps, numbers = sorted(args.widths), sorted(set(args.steps)), args.networks
    whole = load_data(args.data, full=args.data != "letters")
    dataset = whole.sample(train=args.rows, test=args.rows)
    print(dataset, flush=True)
    note_generated(dataset, "--data PATH")
    x, z, k = pixels(dataset.train), pixels(dataset.splits["test"]), int(dataset.classes or 0)
    y, labels = np.eye(k)[dataset.train.y], [f"step {step}" for step in steps]
    distances = Table(["width", "seed", *labels], f"{dataset.title}: distance to infinite width")
    sampled = Table(["kernel", *map(str, numbers), "slope"], "distance of N networks' mean")
    with single_run(args, dataset, names=()):
        errors, exact = sample(x[:10], numbers, widths[0], options), Exact(x, y, *options)
        wanted = [exact.outputs(z, step) for step in steps]
        losses, found = Lines(), []
        for width, seed in itertools.product(widths, range(args.seeds)):
            model = network(x.shape[1], width, k, *options, [width, seed])
            after, losses[f"width {width}"] = train(model, x, y, z, exact.rate, steps)
            found.append([distance(f, w) for f, w in zip(after, wanted, strict=True)])
            distances.add(width, seed, *found[-1])
        losses[LIMIT] = [exact.loss(step) for step in range(steps[-1])]
        columns = np.reshape(found, (len(widths), -1, len(steps))).mean(axis=1).T.tolist()
        means = dict(zip(labels, columns, strict=True))
        distances.add("slope", "", *(slope(widths, values) for values in columns))
        for name, values in errors.items():
            sampled.add(name, *values, slope(numbers, values))
        for name, table in {"distances": distances, "kernels": sampled}.items():
            table.show()
            table.write(args.out / name)
        heading = f"kernels of networks of width {widths[0]}"
        words = "number of networks", "distance of their mean kernel", heading
        more = "width (hidden units)", "distance of the test outputs", "after gradient descent"
        left, sentences = by_root("The mean kernel", numbers, errors, words)
        right, others = by_root("The network", widths, means, more)
        line_plot(args.out / "convergence", left, right, title=dataset.title)
        title = f"{dataset.title}\ntraining on all examples at once"
        curves = {label: (range(len(v)), v) for label, v in losses.items()}
        panel = Panel(curves, "step", "half the mean squared error", title, dashed=[LIMIT])
        line_plot(args.out / "training", panel)
        answers.write(args.out, {"convergence": sentences + others})
    print(f"wrote the tables and the picture to {args.out}/")


if __name__ == "__main__":
    run_main(main)
