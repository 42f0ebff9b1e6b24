"""Tabulate three properties of the maps over random logits (Question 3).

A constant added to the logits changes nothing. As the temperature goes to zero, the limit is the
one-hot vector of the argmax. With b = max z - tau, relumax equals sparsemax.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from homework.flags import add_number, script_parser
from homework.runs import single_run

from minidl import entmax15, relumax, softmax, sparsemax
from minidl.checks import Array
from minidl.view.cli import run_main
from minidl.view.tables import Table

MAPS = softmax, entmax15, sparsemax, relumax(1.0), relumax(5.0)
CLASSES = (2, 5, 26, 1000)


def main() -> None:
    parser = script_parser(__doc__, "runs/q3_properties")
    add_number(parser, "--rows", 1000, "random examples")
    add_number(parser, "--seed", 42, "of the logits", low=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    logits = [2 * rng.normal(size=(args.rows, k)) for k in CLASSES]
    with single_run(args, names=()):
        for name, table in tables(logits).items():
            table.show()
            table.write(args.out / name)
    print(f"{args.rows} rows of normal logits, standard deviation 2; tables in {args.out}/")


def deviations(found: Iterable[Array], expected: Iterable[Array]) -> list[str]:
    """Return the largest differences as texts."""
    return [f"{np.abs(a - b).max():.1e}" for a, b in zip(found, expected, strict=True)]


def tables(logits: Sequence[Array]) -> dict[str, Table]:
    """Return a table of each property; ``logits`` has an array for each number of classes."""
    headers = [f"K = {k}" for k in CLASSES]
    title = "map(z + c) - map(z), largest of all (z + c is itself rounded)"
    constant = Table(["map", "constant", *headers], title)
    title = "map(z / T) - onehot(argmax z), largest of all"
    limit = Table(["map", "temperature", *headers], title)
    corners = [np.eye(z.shape[1])[z.argmax(axis=1)] for z in logits]
    for map in MAPS:
        for c in (1.0, -100.0, 1e6):
            cells = deviations((map(z + c) for z in logits), (map(z) for z in logits))
            constant.add(map, f"{c:g}", *cells)
        for t in (1.0, 1e-2, 1e-4, 1e-8):
            limit.add(map, f"{t:g}", *deviations((map(z / t) for z in logits), corners))
        constant.end_group()
        limit.end_group()
    equality = Table(["b", *headers], "relumax_b(z) - sparsemax(z), largest of all")
    for name, factor in (("max z - tau", 1.0), ("1.01 (max z - tau)", 1.01)):
        found = []
        for z in logits:
            bs = factor * relumax.b_for_sparsemax(z)
            found.append(np.stack([relumax(b)(row) for b, row in zip(bs, z, strict=True)]))
        equality.add(name, *deviations(found, (sparsemax(z) for z in logits)))
    return {"constant": constant, "limit": limit, "equality": equality}


if __name__ == "__main__":
    run_main(main)
