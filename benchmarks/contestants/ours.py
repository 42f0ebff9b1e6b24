"""minidl, by its public functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.task import Task

import minidl
from minidl import OnlineRun, fit_side_by_side
from minidl.checks import Array
from minidl.dataset import Split

if TYPE_CHECKING:
    from workloads.evaluate import Problem as EvaluateProblem
    from workloads.online import Problem as OnlineProblem
    from workloads.simplex import Problem as SimplexProblem
    from workloads.step import Problem as StepProblem


def epochs(problem: StepProblem, rows: slice) -> tuple[Callable[[], object], minidl.Sequential]:
    """Return a function that runs one epoch of ``fit``, without evaluation, and its model."""
    model = problem.model()
    split = Split(problem.x[rows], problem.y[rows], problem.scale)
    dataset = minidl.Dataset(split, classes=problem.sizes[-1])
    kind = minidl.Adam if problem.optimizer == "Adam" else minidl.SGD
    optimizer = kind(model, problem.lr, weight_decay=problem.l2)
    loss, history = minidl.CrossEntropy(), minidl.History()

    def fit(epochs: int) -> None:
        minidl.fit(
            model,
            dataset,
            loss,
            optimizer,
            epochs=epochs,
            batch_size=problem.batch,
            rng=0,
            history=history,
            parts=("valid",),
        )

    fit(0)  # the record before training
    return lambda: fit(len(history)), model


def step(problem: StepProblem) -> Task:
    def check() -> list[Array]:
        epoch, model = epochs(problem, slice(problem.checked_steps * problem.batch))
        epoch()
        return [p.value for _, p in model.named_parameters()]

    epoch, _ = epochs(problem, slice(None))
    return Task(epoch, check, problem.parts)


def online(problem: OnlineProblem) -> Task:
    """Train whole epochs, with the cost of gathering and converting pixels."""
    loss = minidl.Perceptron() if problem.model == "perceptron" else minidl.CrossEntropy()

    def epochs(rows: slice) -> tuple[Callable[[], object], list[OnlineRun]]:
        split = Split(problem.x[rows], problem.y[rows], problem.scale)
        dataset = minidl.Dataset(split, classes=problem.classes)
        runs = [OnlineRun(problem.network(), lr, weight_decay=l2) for lr, l2 in problem.settings]

        def fit(epochs: int) -> None:
            fit_side_by_side(runs, dataset, loss, epochs=epochs, rng=0, parts=("valid",))

        fit(0)
        return lambda: fit(len(runs[0].history)), runs

    def check() -> list[list[Array]]:
        epoch, runs = epochs(slice(len(problem.order)))
        epoch()
        return [[p.value for _, p in run.model.named_parameters()] for run in runs]

    epoch, _ = epochs(slice(None))
    return Task(epoch, check, len(problem.y))


def evaluate(problem: EvaluateProblem) -> Task:
    loss, model, split = minidl.CrossEntropy(), problem.model, problem.split
    return Task(
        lambda: minidl.evaluate(model, split, loss),
        lambda: minidl.evaluate(model, split, loss)["loss"],
    )


def simplex(problem: SimplexProblem) -> Task:
    z, dp, y = problem.z, problem.dp, problem.y
    if problem.is_loss:
        loss = problem.loss()
        return Task(lambda: loss(z, y), lambda: loss(z, y))
    map = problem.map()

    def both() -> tuple[Array, Array]:
        p = map(z)
        return p, map.vjp(p, dp)

    return Task(both, both)
