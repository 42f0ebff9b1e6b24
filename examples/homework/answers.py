"""Answers in words, computed from figures: each sentence states its figures and its condition.

The scripts choose the thresholds. Where figures call for the opposite sentence, it is returned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from minidl import History
from minidl.files import to_json, write_text

Values = Sequence[float]
FILE = "answers.json"  # lists of sentences by the name of the picture that they stand below


def write(out: Path, answers: Mapping[str, Sequence[str]]) -> None:
    """Print the sentences, and write them to ``out``; the keys are pictures without a suffix."""
    for sentence in (s for sentences in answers.values() for s in sentences):
        print(sentence)
    write_text(out / FILE, to_json(answers, indent=1) + "\n")


def convergence(what: str, values: Values, *, last: int, small: float) -> str:
    """Say whether a curve has settled; ``values`` has one entry an epoch, the untrained first.

    It rises or falls if the last epochs end more than half of their range from where they begin.
    """
    epochs = len(values) - 1
    last = min(last, max(epochs - 1, 1))  # the first step from untrained is no sign
    tail, when = values[-1 - last :], f"in the last {last} of {epochs} epochs"
    spread, change = max(tail) - min(tail), tail[-1] - tail[0]
    if spread <= small:
        return f"{what} stays within {spread:.4f} {when}: converged."
    if abs(change) > spread / 2:
        verb = "rises" if change > 0 else "falls"
        return f"{what} still {verb} by {abs(change):.4f} {when}: not converged."
    return f"{what} goes up and down by {spread:.4f} {when}: it has not settled."


def overfitting(history: History, *, gap: float, rise: float, fits: float) -> str:
    """Say whether a classifier overfits or underfits.

    By a validation loss ``rise`` (a share) above its lowest, a training accuracy ``gap`` above the
    validation accuracy, or, where neither holds, a training accuracy below ``fits``.
    """
    loss, last, best = history.column("valid_loss"), history[-1], history.best.epoch
    low = min(range(min(1, last.epoch), len(loss)), key=loss.__getitem__)  # of trained epochs
    train, valid = last.train_accuracy, last.valid_accuracy
    rising, apart = loss[-1] > (1 + rise) * loss[low], train - valid > gap
    end = f"{loss[low]:.3f}, and {loss[-1]:.3f} at the last" if low < last.epoch else "the last"
    verdict = {
        (True, True): "it overfits",
        (True, False): "the loss rises on new examples, their accuracy does not show it yet",
        (False, True): "it fits better than it generalises, but more epochs have not done harm",
    }.get((rising, apart), "neither overfitting nor underfitting")
    if not rising and not apart and train < fits:
        verdict = "it does not overfit, it underfits"
    return (
        f"The best epoch is {best} of {last.epoch}. The validation loss is lowest at epoch {low}, "
        f"{end}; training accuracy ends {train - valid:+.4f} from validation "
        f"({train:.4f}, {valid:.4f}): {verdict}."
    )


def of_run(history: History, *, settled: float, **thresholds: float) -> list[str]:
    """Return what the curves of a classifier say: ``convergence`` and ``overfitting``."""
    valid = history.column("valid_accuracy")
    settling = convergence("Validation accuracy", valid, last=5, small=settled)
    return [settling, overfitting(history, **thresholds)]


def excess(train: Values, test: Values, *, rise: float) -> str:
    """Say whether a regression overfits: its test error ends a share ``rise`` above the lowest."""
    low, last = min(range(len(test)), key=test.__getitem__), len(test) - 1
    verdict = "it overfits" if train[-1] < train[low] else "the run has not settled"
    if test[-1] <= (1 + rise) * test[low]:
        verdict = "no overfitting"
    return (
        f"The test error is lowest at epoch {low} of {last}, {test[low]:.4f}, and {test[-1]:.4f} at"
        f" the last; the training error goes from {train[low]:.4f} to {train[-1]:.4f}: {verdict}."
    )


def growth(what: str, axis: str, x: Sequence[int], y: Values, *, small: float) -> str:
    """Say how a figure changes along an axis: growing, with diminishing returns, a peak, flat."""
    top, spread = max(range(len(y)), key=y.__getitem__), max(y) - min(y)
    begin, end = f"{y[0]:.4f} at {axis} {x[0]}", f"{y[-1]:.4f} at {axis} {x[-1]}"
    if len(y) < 2:
        return f"{what} is {begin}, the only one."
    if spread <= small:
        return f"{what} stays within {spread:.4f} from {axis} {x[0]} to {x[-1]}: no effect."
    if y[top] - y[-1] > small:
        peak = f"is highest at {axis} {x[top]}, {y[top]:.4f}, and falls"
        return f"{what} {peak if top else f'falls from {begin}'} to {end}."
    dips = ", not at every step," if any(a - b > small for a, b in pairwise(y)) else ""
    words = f"{what} rises{dips} from {begin} to {end}"
    if len(y) < 3:
        return f"{words}."
    first, last = y[1] - y[0], y[-1] - y[-2]
    verdict = "diminishing returns" if last < first else "no sign of a limit"
    verdict = "it has levelled off" if last <= small else verdict
    return f"{words}; the first step adds {first:+.4f}, the last {last:+.4f}: {verdict}."


def capacity(width: int, train: float, test: float, n: int, *, fits: float) -> str:
    """Say what a training accuracy has to do with universal approximation."""
    reason = "universal approximation promises a width that fits all, not that training finds it"
    if train >= fits:
        enough = "the network is nearly wide enough to fit them all"
        reason = f"{enough}, as universal approximation says"
    wrong = f"{round((1 - train) * n):,} of {n:,} training examples are wrong"
    new = f"It says nothing of new examples: test accuracy is {train - test:.4f} lower"
    return f"At width {width} {wrong}: {reason}. {new}."


def depth(layers: Sequence[int], train: Values, valid: Values, *, small: float) -> str:
    """Say which depth is best, and whether deeper networks fail to fit or to generalise."""
    top, last = max(range(len(valid)), key=valid.__getitem__), layers[-1]
    if valid[top] - valid[-1] <= small:
        return f"Depth {last} is as good as any ({valid[-1]:.4f}): depth does no harm here."
    words = f"Depth {layers[top]} is best, {valid[top]:.4f}; depth {last} has {valid[-1]:.4f}"
    if train[top] - train[-1] > small:
        words += f". Training accuracy falls too, from {train[top]:.4f} to {train[-1]:.4f}"
        return f"{words}: the deep network is not trained well, it does not overfit."
    return f"{words}, with training accuracy {train[-1]:.4f} against {train[top]:.4f}: it overfits."


def gradients(norms: Values, dead: float, *, vanish: float) -> str:
    """Say whether gradients reach all layers; ``norms`` of them, the first layer's first."""
    ratios = [norm / norms[-1] if norms[-1] else 0.0 for norm in norms]
    low, high = min(ratios), max(ratios)
    ratio = low if low < vanish or 1 / vanish >= high else high
    verdict = "vanishes" if ratio < vanish else "explodes" if ratio > 1 / vanish else "arrives"
    where = f"with {len(norms) - 1} hidden layer(s) the gradient of layer {ratios.index(ratio) + 1}"
    size = f"{ratio:.1g} of the last one's at the end"
    return f"{where} is {size}: it {verdict}; {dead:.0%} of the units are dead."


def noise(a: float, b: float, n: int, errors: float) -> float:
    """Return ``errors`` standard errors of the difference of two accuracies on n examples."""
    return errors * math.sqrt((a * (1 - a) + b * (1 - b)) / n)


def choice(what: str, accuracies: Mapping[str, float], n: int, *, errors: float) -> str:
    """Say which is best, and whether it leads by ``errors`` standard errors on ``n`` examples."""
    if len(accuracies) < 2:
        return f"{what}: {', '.join(f'{k} alone, {a:.4f}' for k, a in accuracies.items())}."
    (first, a), (second, b), *_ = sorted(accuracies.items(), key=lambda item: -item[1])
    least = noise(a, b, n, errors)
    more, verdict = ("more", "") if a - b > least else ("less", ", so a tie")
    size = f"{errors:g} standard errors on {n:,} examples ({least:.4f})"
    lead = f"{first} is best, {a:.4f}, {a - b:.4f} ahead of {second}"
    return f"{what}: {lead}: {more} than {size}{verdict}."


def effect(what: str, before: float, after: float, n: int, *, errors: float) -> str:
    """Say whether a change raises or lowers an accuracy on ``n`` examples, or neither."""
    least, verb = noise(before, after, n, errors), "raises" if after > before else "lowers"
    if abs(after - before) <= least:
        verb = f"makes no difference beyond {errors:g} standard errors ({least:.4f}) to"
    return f"{what} {verb} the accuracy: from {before:.4f} to {after:.4f}."


def stability(what: str, values: Values, *, drop: float) -> str:
    """Say whether a curve falls by more than ``drop`` from one epoch to the next."""
    worst = max((a - b for a, b in pairwise(values[1:])), default=0.0)
    ends = f"from {min(values[1:]):.4f} to {max(values[1:]):.4f}, {values[-1]:.4f} at the end"
    if worst > drop:
        return f"{what}: unstable, {ends}; it falls by up to {worst:.4f} in one epoch."
    return f"{what}: stable, {ends}."


def shrinkage(what: str, without: float, with_: float, *, factor: float) -> str:
    """Say how a penalty changes the norm of the weights; it matters from ``factor`` on."""
    ratio = without / with_ if with_ else math.inf
    smaller = f"{ratio:.1f} times" if ratio >= factor else "hardly"
    words = f"the norm of the weights is {with_:.2f} instead of {without:.2f}"
    return f"{what}: {words}, {smaller} smaller."


def approach(what: str, distances: Values, *, near: float) -> str:
    """Say whether distances fall at every step, and whether less than ``near`` of it is left."""
    left = distances[-1] / distances[0] if distances[0] else 0.0
    steps = "" if all(b < a for a, b in pairwise(distances)) else "not "
    verdict = "arrives" if left < near else "does not arrive"
    ends = f"from {distances[0]:.4f} to {distances[-1]:.4f}"
    return f"{what} goes {ends}, {steps}falling at every step; {left:.1%} is left: it {verdict}."
