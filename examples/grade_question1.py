"""Write the master notebook of Question 1 for otter-grader: students fill in the backward passes.

The tests are gradient checks of ``minidl.testing``, one for each gradient.
"""

from typing import Any

from homework.flags import script_parser

from minidl.files import to_json, write_text
from minidl.view.cli import run_main

SETUP = """\
import numpy as np

from minidl.testing import check_loss, check_pair

rng = np.random.RandomState(42)
"""

PERCEPTRON = """\
def perceptron(logits, y):
    \"\"\"The mean of max_k logits_k - logits_y over the batch, and its gradient.\"\"\"
    n, best = len(logits), logits.argmax(axis=1)
    value = (logits[np.arange(n), best] - logits[np.arange(n), y]).mean()
    # BEGIN SOLUTION
    gradient = np.zeros_like(logits)
    gradient[np.arange(n), best] += 1 / n
    gradient[np.arange(n), y] -= 1 / n
    # END SOLUTION
    return value, gradient
"""

CROSS_ENTROPY = """\
def cross_entropy(logits, y):
    \"\"\"The mean of log sum_k exp(logits_k) - logits_y over the batch, and its gradient.\"\"\"
    n = len(logits)
    z = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    value = (np.log(total)[:, 0] - z[np.arange(n), y]).mean()
    # BEGIN SOLUTION
    gradient = p / total
    gradient[np.arange(n), y] -= 1
    gradient /= n
    # END SOLUTION
    return value, gradient
"""

MLP = """\
def mlp_forward(x, w1, b1, w2, b2):
    \"\"\"A network with one hidden layer of rectified linear units.\"\"\"
    z1 = x @ w1 + b1
    h = np.maximum(z1, 0)
    return h @ w2 + b2, (x, w1, z1, h, w2)


def mlp_backward(dy, cache):
    \"\"\"Return the gradients of x, w1, b1, w2 and b2 for the cotangent dy of the output.\"\"\"
    x, w1, z1, h, w2 = cache
    # BEGIN SOLUTION
    dz1 = (dy @ w2.T) * (z1 > 0)
    dx, dw1, db1 = dz1 @ w1.T, x.T @ dz1, dz1.sum(axis=0)
    dw2, db2 = h.T @ dy, dy.sum(axis=0)
    # END SOLUTION
    return dx, dw1, db1, dw2, db2
"""

LOSS_TEST = """\
logits, y = rng.normal(size=(8, 26)), rng.randint(26, size=8)
check_loss({name}, logits, y).raise_if_failed()
"""

MLP_TEST = """\
sizes = (8, 20), (20, 10), (10,), (10, 26), (26,)
x, *parameters = (rng.normal(size=size) for size in sizes)
report = check_pair(mlp_forward, mlp_backward, (x, *parameters))
assert not report["{tensor}"].failure, report["{tensor}"].failure
"""

LOSS_TESTS = [LOSS_TEST.format(name=name) for name in ("perceptron", "cross_entropy")]
MLP_TESTS = [MLP_TEST.format(tensor=name) for name in ("x", "w1", "b1", "w2", "b2")]
QUESTIONS = [
    ("gradient of the perceptron's loss", PERCEPTRON, LOSS_TESTS[:1]),
    ("gradient of the cross-entropy of a logistic regression", CROSS_ENTROPY, LOSS_TESTS[1:]),
    ("backward pass of the network: a point for each gradient", MLP, MLP_TESTS),
]
"""The text, the solution and the tests of each question."""


def notebook() -> dict[str, Any]:
    """Return the master notebook in otter-grader's format."""
    cells = [("raw", "# ASSIGNMENT CONFIG\nrun_tests: true")]
    cells += [("markdown", "# Question 1: backward passes"), ("code", SETUP)]
    for i, (text, solution, tests) in enumerate(QUESTIONS, start=1):
        cells.append(("raw", f"# BEGIN QUESTION\nname: q1_{i}\npoints: {len(tests)}"))
        cells += [
            ("markdown", f"**Question 1.{i}.** Fill in the {text}."),
            ("raw", "# BEGIN SOLUTION"),
        ]
        cells += [("code", solution), ("raw", "# END SOLUTION"), ("raw", "# BEGIN TESTS")]
        cells += [("code", test) for test in tests]
        cells += [("raw", "# END TESTS"), ("raw", "# END QUESTION")]
    made: list[dict[str, Any]] = []
    for k, (kind, source) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{k}", "metadata": {}, "source": source.rstrip()}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    out = script_parser(__doc__, "question1.ipynb").parse_args().out
    write_text(out, to_json(notebook(), indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    run_main(main)
