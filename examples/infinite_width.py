"""Compute what a network of infinite width would predict (Questions 2.2c and 2.3).

A ReLU network whose width goes to infinity, trained by gradient descent on the squared error,
becomes kernel regression: with the kernel NTK, or NNGP if only the last layer is trained. The
script solves it exactly, without training; docs/infinite_width.md derives the kernels. It keeps one
matrix in float64, 0.9 GB for 10,400 examples, and 0.2 GB beside it.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from homework import answers
from homework.data import load_data, note_generated
from homework.flags import add_axis, add_number
from homework.runs import single_run

from minidl import Dataset, Split
from minidl.checks import Array
from minidl.files import as_path, write_text
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

QUICK, LIMIT, BLOCK = 2_600, 20_000, 256
"""Training examples: by default, at most, and in a block of the matrix."""
JITTERS = (0, 1e-12, 1e-10, 1e-8, 1e-6)
"""Jitters, as shares of the mean diagonal: the first for which Cholesky succeeds is added."""
KERNELS = ("NNGP", "NTK")
SMALL = 0.005  # for the answers: accuracies that are equal
Kernel = Callable[[Array, Array], Array]


def kernels(
    x: Array, z: Array, layers: int = 1, sw2: float = 2.0, sb2: float | Sequence[float] = 0.0
) -> tuple[Array, Array]:
    """Return NNGP and NTK of all rows of x with all rows of z: (n, d), (m, d) to (n, m) each.

    Both are ``x.z / d`` at the input. Each of the hidden layers makes of them, with
    ``S = sw2 NNGP + sb2 = r cos t``, ``r = sqrt(S(x, x) S(z, z))`` and ``T = sw2 NTK + sb2``,

    ``NNGP = r (sin t + (pi - t) cos t) / (2 pi)``, ``NTK = NNGP + T (pi - t) / (2 pi)``

    ``sb2`` is one number, or one for each layer.
    """
    nngp = ntk = x @ z.T / x.shape[1]
    xx, zz = (np.mean(a * a, axis=1) for a in (x, z))
    for bias in np.broadcast_to(sb2, layers):
        s, t, xx, zz = (sw2 * k + bias for k in (nngp, ntk, xx, zz))
        r = np.sqrt(np.outer(xx, zz))
        cosine = np.divide(s, r, out=np.zeros_like(s), where=r > 0)
        # Of equal rows, rounding would leave an angle of up to 1e-7.
        cosine = np.where(1 - cosine < 1e-13, 1.0, np.maximum(cosine, -1))
        on = (np.pi - np.arccos(cosine)) / (2 * np.pi)  # the share of units that are on for both
        nngp = r * (np.sqrt(1 - cosine**2) / (2 * np.pi) + on * cosine)
        ntk = nngp + t * on
        xx, zz = xx / 2, zz / 2
    return nngp, ntk


class Solution(NamedTuple):
    """Kernel regression on n examples: f(z) = k(z, x) alpha."""

    alpha: Array
    fitted: Array
    """K alpha, the outputs at the examples."""
    alone: Array
    """The output at each example of regression on all others."""
    jitter: float


def solve(kernel: Kernel, x: Array, y: Array) -> Solution:
    """Solve (K + jitter I) alpha = y by Cholesky; y is (n, outputs).

    Leave-one-out without refits: ``alone_i = y_i - alpha_i / P_ii``, ``P = (K + jitter I)^-1``.
    """
    blocks = [slice(a, min(a + BLOCK, len(x))) for a in range(0, len(x), BLOCK)]
    matrix = np.empty((len(x), len(x)))  # right of the diagonal K, left the inverse factor
    for b in blocks:
        matrix[b, b.start :] = kernel(x[b], x[b.start :])
    diagonal = [matrix[b, b].copy() for b in blocks]
    for jitter in np.mean(matrix.diagonal()) * np.array(JITTERS):
        for b, block in zip(blocks, diagonal, strict=True):
            matrix[b, b] = block + jitter * np.eye(len(block))
            matrix[b.stop :, b] = matrix[b, b.stop :].T
        try:
            alpha, precision = invert(matrix, blocks, y)
        except np.linalg.LinAlgError:
            continue
        fitted = np.zeros(y.shape)
        for b, block in zip(blocks, diagonal, strict=True):
            fitted[b] += block @ alpha[b] + matrix[b, b.stop :] @ alpha[b.stop :]
            fitted[b.stop :] += matrix[b, b.stop :].T @ alpha[b]
        return Solution(alpha, fitted, y - alpha / precision[:, None], float(jitter))
    raise ValueError(f"the kernel is not positive definite, even with {jitter:.1e} on its diagonal")


def invert(matrix: Array, blocks: Sequence[slice], y: Array) -> tuple[Array, Array]:
    """Put L^-1 in place of the lower triangle of matrix = L L'; return P y and the diagonal of P.

    For each block: its columns of L from those before, then its rows of L^-1. P = L'^-1 L^-1.
    """
    alpha, precision = np.zeros(y.shape), np.zeros(len(y))
    for b in blocks:
        a, size = b.start, b.stop - b.start
        column = matrix[a:, b] - matrix[a:, :a] @ matrix[b, :a].T
        inverse = np.tril(np.linalg.inv(np.linalg.cholesky(column[:size])))
        matrix[b.stop :, b] = column[size:] @ inverse.T
        row = [matrix[b, j.start : a] @ matrix[j.start : a, j] for j in blocks if j.start < a]
        matrix[b, : b.stop] = -inverse @ np.concatenate([*row, -np.eye(size)], axis=1)
        alpha[: b.stop] += matrix[b, : b.stop].T @ (matrix[b, : b.stop] @ y[: b.stop])
        precision[: b.stop] += np.sum(matrix[b, : b.stop] ** 2, axis=0)
    return alpha, precision


def pixels(split: Split) -> Array:  # in float64
    return split.rows(slice(None), np.float64)


def merge(x: Array, y: Array, classes: int) -> tuple[Array, Array, Array]:
    """Return the distinct rows, which one each example is, and how often each has each label."""
    rows, group = np.unique(x, axis=0, return_inverse=True)
    counts = np.zeros((len(rows), classes))
    np.add.at(counts, (group.reshape(-1), y), 1)
    return rows, group.reshape(-1), counts


def measure(dataset: Dataset, i: int, *options: Any) -> dict[str, float]:
    """Return accuracies of regression on one-hot labels with ``kernels(x, z, *options)[i]``."""

    def kernel(a: Array, b: Array) -> Array:
        return kernels(a, b, *options)[i]

    began, classes = time.perf_counter(), int(dataset.classes or 0)
    y = dataset.train.y
    labels = {"leave_one_out": y} | {part: split.y for part, split in dataset.splits.items()}
    x, group, counts = merge(pixels(dataset.train), y, classes)
    # Of equal rows, gradient descent fits the mean, and leave-one-out finds the others.
    solution = solve(kernel, x, counts / counts.sum(axis=1, keepdims=True))
    others = counts[group] - np.eye(classes)[y]
    alone = np.where(others.any(axis=1, keepdims=True), others, solution.alone[group])
    found = {"train": solution.fitted[group], "leave_one_out": alone}
    for part in ("valid", "test"):
        z = pixels(dataset.splits[part])
        chunks = np.array_split(z, -(-len(z) // BLOCK))
        found[part] = np.concatenate([kernel(chunk, x) @ solution.alpha for chunk in chunks])
    scores = {k: float(np.mean(f.argmax(axis=1) == labels[k])) for k, f in found.items()}
    return {**scores, "jitter": solution.jitter, "seconds": time.perf_counter() - began}


def sentences(results: Sequence[dict[str, Any]], fits: int, n: int) -> list[str]:
    """Return what the results say of training accuracy and of depth."""
    found = [
        f"{r['layers']} hidden layers of infinite width, {r['kernel']}: training accuracy "
        f"{r['train']:.4f}, where {fits / n:.4f} can be fitted; test accuracy {r['test']:.4f}."
        for r in results
    ]
    for name in KERNELS:
        tests = {r["layers"]: float(r["test"]) for r in results if r["kernel"] == name}
        if len(tests) > 1:
            x, y = list(tests), list(tests.values())
            found.append(answers.growth(f"Test accuracy of {name}", "depth", x, y, small=SMALL))
    return found


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", default="letters", metavar="PATH", help="course .npz or folder of IDX files")
    add("--rows", type=int_argument("rows"), help=f"training examples (default {QUICK:,})")
    add("--full", action="store_true", help="all training examples; of the letters 10,400")
    add_axis(parser, "--layers", [1])
    add_number(parser, "--sw2", 2.0, "variance of a weight times the inputs", low=0, open_low=True)
    add_number(parser, "--sb2", 0.0, "variance of a bias", low=0)
    add("--out", type=as_path, default=Path("runs/infinite_width"), help="folder of the results")
    args = parser.parse_args()
    whole = load_data(args.data, full=args.data != "letters")
    n = min(args.rows or (len(whole.train) if args.full else QUICK), len(whole.train))
    if n > LIMIT:
        raise ValueError(
            f"{n:,} training examples need a matrix of {8 * n**2 / 1e9:.1f} GB; expected at most "
            f"{LIMIT:,} ({8 * LIMIT**2 / 1e9:.1f} GB): --rows {LIMIT} takes a sample"
        )
    dataset = whole.sample(train=n)
    print(f"{dataset}; a matrix of {8 * n**2 / 1e9:.2g} GB")
    note_generated(dataset, "--data PATH")
    counts = merge(pixels(dataset.train), dataset.train.y, int(dataset.classes or 0))[2]
    lost = int(n - counts.max(axis=1).sum())
    print(f"equal rows with different labels keep {lost} examples from being fitted")
    with single_run(args, dataset, names=()):
        results = [
            {"layers": layers, "kernel": name, **measure(dataset, i, layers, args.sw2, args.sb2)}
            for layers in args.layers
            for i, name in enumerate(KERNELS)
        ]
        title = f"{dataset.title}\ninfinite width, {n:,} examples"
        table = Table(list(results[0]), title.replace("\n", ", "))
        for r in results:
            table.add(*(f"{v:.2g}" if k in ("jitter", "seconds") else v for k, v in r.items()))
        table.show()
        table.write(args.out / "table")
        record = {"examples": Dataset(dataset.train).checksum(), "results": results}
        write_text(args.out / "infinite.json", json.dumps(record, indent=1) + "\n")
        if len(args.layers) > 1:
            tests = [[r["test"] for r in results if r["kernel"] == name] for name in KERNELS]
            curves = {k: (args.layers, test) for k, test in zip(KERNELS, tests, strict=True)}
            axes = "depth (hidden layers)", "test accuracy (share of examples)", title
            line_plot(args.out / "accuracy-by-layers", Panel(curves, *axes, args.layers))
        answers.write(args.out, {"accuracy-by-layers": sentences(results, n - lost, n)})
    print(f"wrote the results to {args.out}{os.sep}")


if __name__ == "__main__":
    run_main(main)
