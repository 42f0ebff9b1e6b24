"""Tabulate three properties of the maps over random logits (Question 3).

A constant added to the logits changes nothing. As the temperature goes to zero, the limit is the
one-hot vector of the argmax. With b = max z - tau, relumax equals sparsemax.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from homework.runs import single_run

from minidl import entmax15, relumax, softmax, sparsemax
from minidl.checks import Array, check_int
from minidl.files import as_path
from minidl.view.cli import Parser, run_main
from minidl.view.tables import Table

MAPS = softmax, entmax15, sparsemax, relumax(1.0), relumax(5.0)
CLASSES = (2, 5, 26, 1000)


def deviation(a: Array, b: Array) -> str:
    """Return the largest difference as the text of a cell."""
    return f"{np.abs(a - b).max():.1e}"


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000, help="random examples (1000)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=as_path, default=Path("runs/q3_properties"))
    args = parser.parse_args()
    rng = np.random.default_rng(check_int("q3_properties", "seed", args.seed, low=0))
    rows = check_int("q3_properties", "rows", args.rows)
    inputs = {k: 2 * rng.normal(size=(rows, k)) for k in CLASSES}
    with single_run(args, names=()):
        tabulate(inputs, args.out)
    print(f"{rows} rows of normal logits, standard deviation 2; tables in {args.out}/")


def tabulate(inputs: Mapping[int, Array], out: Path) -> None:
    """Write a table of each property; ``inputs`` holds the logits by their number of classes."""
    headers = [f"K = {k}" for k in CLASSES]

    constants = Table(
        ["map", "constant", *headers],
        "map(z + c) - map(z), largest of all (z + c is itself rounded)",
    )
    for map in MAPS:
        for c in (1.0, -100.0, 1e6):
            constants.add(map, f"{c:g}", *[deviation(map(z + c), map(z)) for z in inputs.values()])
        constants.end_group()

    limit = Table(["map", "temperature", *headers], "map(z / T) - onehot(argmax z), largest of all")
    for map in MAPS:
        for t in (1.0, 1e-2, 1e-4, 1e-8):
            corners = [np.eye(k)[z.argmax(axis=1)] for k, z in inputs.items()]
            cells = [
                deviation(map(z / t), c) for z, c in zip(inputs.values(), corners, strict=True)
            ]
            limit.add(map, f"{t:g}", *cells)
        limit.end_group()

    equality = Table(["b", *headers], "relumax_b(z) - sparsemax(z), largest of all")
    for name, factor in (("max z - tau", 1.0), ("1.01 (max z - tau)", 1.01)):
        cells = []
        for z in inputs.values():
            bs = factor * relumax.b_for_sparsemax(z)
            ours = np.stack([relumax(b)(row) for b, row in zip(bs, z, strict=True)])
            cells.append(deviation(ours, sparsemax(z)))
        equality.add(name, *cells)

    for name, table in (("constant", constants), ("limit", limit), ("equality", equality)):
        table.show()
        table.write(out / name)


if __name__ == "__main__":
    run_main(main)
