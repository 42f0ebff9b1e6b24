"""Compute what a network of infinite width would predict (Questions 2.2c and 2.3).

A ReLU network whose width goes to infinity, trained by gradient descent on the squared error,
becomes kernel regression: with the kernel NTK, or NNGP if only the last layer is trained. The
script solves it exactly, without training; docs/infinite_width.md derives the kernels.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.flags import add_axis, kernel_parser, load_data, note_generated
from homework.kernels import KERNELS, blocks, kernels, merge, pixels, solve
from homework.runs import single_run

from minidl import Dataset
from minidl.checks import Array
from minidl.files import to_json, write_text
from minidl.view.cli import int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

QUICK, LIMIT = 2_600, 20_000  # training examples: by default, and at most
SMALL = 0.005  # for the answers: accuracies that are equal


def measure(dataset: Dataset, i: int, *options: Any) -> dict[str, float]:
    """Return accuracies of regression on one-hot labels with ``kernels(x, z, *options)[i]``."""

    def kernel(a: Array, b: Array) -> Array:
        return kernels(a, b, *options)[i]

    began, y, classes = time.perf_counter(), dataset.train.y, int(dataset.classes or 0)
    labels = {"leave_one_out": y} | {part: split.y for part, split in dataset.splits.items()}
    x, group, counts = merge(pixels(dataset.train), y, classes)
    # Of equal rows, gradient descent fits the mean, and leave-one-out finds the others.
    solution = solve(kernel, x, counts / counts.sum(axis=1, keepdims=True))
    others = counts[group] - np.eye(classes)[y]
    alone = np.where(others.any(axis=1, keepdims=True), others, solution.alone[group])
    found = {"train": solution.fitted[group], "leave_one_out": alone}
    for part in ("valid", "test"):
        rows = blocks(pixels(dataset.splits[part]))
        found[part] = np.concatenate([kernel(z, x) @ solution.alpha for z in rows])
    scores = {k: float(np.mean(f.argmax(axis=1) == labels[k])) for k, f in found.items()}
    return {**scores, "jitter": solution.jitter, "seconds": time.perf_counter() - began}


def report(
    dataset: Dataset, results: Sequence[dict[str, Any]], layers: Sequence[int], fits: int, out: Path
) -> None:
    """Print, write and draw the accuracies; ``fits`` training examples can be fitted."""
    n = len(dataset.train)
    title = f"{dataset.title}\ninfinite width, {n:,} examples"
    table, sentences, curves = Table(list(results[0]), title.replace("\n", ", ")), [], {}
    for r in results:
        table.add(*(f"{v:.2g}" if k in ("jitter", "seconds") else v for k, v in r.items()))
        sentences.append(
            f"{r['layers']} hidden layers of infinite width, {r['kernel']}: training accuracy "
            f"{r['train']:.4f}, where {fits / n:.4f} can be fitted; test accuracy {r['test']:.4f}."
        )
    table.show()
    table.write(out / "table")
    record = {"examples": Dataset(dataset.train).checksum(), "results": results}
    write_text(out / "infinite.json", to_json(record, indent=1) + "\n")
    if len(layers) > 1:
        for i, name in enumerate(KERNELS):
            tests = [r["test"] for r in results[i :: len(KERNELS)]]
            what, curves[name] = f"Test accuracy of {name}", (layers, tests)
            sentences.append(answers.growth(what, "depth", layers, tests, small=SMALL))
        axes = "depth (hidden layers)", "test accuracy (share of examples)", title
        line_plot(out / "accuracy-by-layers", Panel(curves, *axes, layers))
    answers.write(out, {"accuracy-by-layers": sentences})


def main() -> None:
    parser = kernel_parser(__doc__, "runs/infinite_width")
    add_argument = parser.add_argument
    add_argument("--rows", type=int_argument("rows"), help=f"training examples (default {QUICK:,})")
    add_argument("--full", action="store_true", help="all training examples; of the letters 10,400")
    add_axis(parser, "--layers", [1])
    args = parser.parse_args()
    whole = load_data(args.data, full=args.data != "letters")
    n = min(args.rows or (len(whole.train) if args.full else QUICK), len(whole.train))
    if n > LIMIT:
        raise ValueError(
            f"{n:,} training examples need four matrices of {8 * n**2 / 1e9:.1f} GB; expected at "
            f"most {LIMIT:,} ({8 * LIMIT**2 / 1e9:.1f} GB): --rows {LIMIT} takes a sample"
        )
    dataset = whole.sample(train=n)
    print(f"{dataset}; four matrices of {8 * n**2 / 1e9:.2g} GB")
    note_generated(dataset, "--data PATH")
    counts = merge(pixels(dataset.train), dataset.train.y, int(dataset.classes or 0))[2]
    fits = int(counts.max(axis=1).sum())
    print(f"equal rows with different labels keep {n - fits} examples from being fitted")
    with single_run(args, dataset, names=()):
        results = [
            {"layers": layers, "kernel": name, **measure(dataset, i, layers, args.sw2, args.sb2)}
            for layers in args.layers
            for i, name in enumerate(KERNELS)
        ]
        report(dataset, results, args.layers, fits, args.out)
    print(f"wrote the results to {args.out}/")


if __name__ == "__main__":
    run_main(main)
