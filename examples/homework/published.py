"""Published figures of 2025-26, and the comparison with ours."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidl.dataset import Dataset
from minidl.view.tables import Table

COURSE_FILE = "4f3b704981b3eb4ec7042fdf18400eeed27af74d"
"""The git blob SHA-1 of the course's ``emnist-letters.npz``, which was not available to us."""


@dataclass(frozen=True)
class Published:
    """The figures of one report, digit by digit, and the settings that they belong to."""

    model: str
    group: str
    figures: Mapping[str, str]
    settings: Mapping[str, float | str]


def _logistic(group: str, features: str, **figures: str) -> Published:
    """Return figures of logistic regression with the assignment's learning rate and penalty."""
    settings: dict[str, float | str] = {"epochs": 20, "features": features}
    settings |= {"lr": 1e-4, "l2": 1e-5, "l1": 0.0}
    return Published("logistic regression", group, figures, settings)


def _grid(group: str, features: str, lr: float, l2: float, **figures: str) -> Published:
    """Return figures of one logistic regression of the grid."""
    settings: dict[str, float | str] = {"epochs": 20, "features": features}
    return Published(
        "logistic regression", group, figures, settings | {"lr": lr, "l2": l2, "l1": 0.0}
    )


def _network(layers: int, width: int, **figures: str) -> Published:
    """Return figures of a network of group a, with the learning rate and L2 of its best one."""
    settings: dict[str, float | str] = {"layers": layers, "width": width, "epochs": 30}
    settings |= {"learning_rate": 1e-3, "dropout": 0.0, "l2": 1e-4}
    return Published("network", "a", figures, settings | {"optimizer": "adam", "batch_size": 64})


MLP = {"epochs": 20, "width": 100, "lr": 1e-3, "l2": 0.0}

PUBLISHED = (
    Published("perceptron", "a", {"test": "0.6110"}, {"epochs": 20}),
    Published(
        "perceptron",
        "b",
        {"best_valid": "0.6127", "selected_epoch": "6", "test": "0.6111"},
        {"epochs": 20},
    ),
    _logistic("a", "raw", test="0.7022"),
    _logistic("b", "raw", best_valid="0.6959134615", selected_epoch="20", test="0.6975"),
    _logistic("b", "pool", best_valid="0.6544", test="0.6521"),
    Published("MLP", "a", {"test": "0.8803"}, MLP),
    Published(
        "MLP", "b", {"best_valid": "0.8803365", "selected_epoch": "18", "test": "0.8775"}, MLP
    ),
    _grid("a", "raw", 1e-3, 1e-4, best_valid="0.7206", test="0.7222"),
    _grid("b", "raw", 1e-3, 1e-5, best_valid="0.7200", test="0.7209"),
    _network(1, 256, best_valid="0.9059", train="0.9523", test="0.9030"),
    _network(1, 32, best_valid="0.8452"),
    _network(3, 32, best_valid="0.8683", train="0.8905", last_train="0.8824", test="0.8646"),
    _network(5, 32, best_valid="0.8660"),
    _network(7, 32, best_valid="0.8411"),
    _network(9, 32, best_valid="0.8037"),
)
WORDS = {
    "best_valid": "validation accuracy, best epoch",
    "selected_epoch": "best epoch",
    "train": "training accuracy, best epoch",
    "last_train": "training accuracy, last epoch",
    "test": "test accuracy, best epoch",
}
"""The published figures in words, in the order in which they are shown."""


def is_course_file(path: str | os.PathLike[str]) -> bool:
    """Return whether this is the course's own ``emnist-letters.npz``, by its git blob SHA-1."""
    if not Path(path).is_file():
        return False
    digest = hashlib.sha1(f"blob {Path(path).stat().st_size}\0".encode(), usedforsecurity=False)
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == COURSE_FILE


def matching(model: str, settings: Mapping[str, Any]) -> list[Published]:
    """Return the published figures of this model that belong to exactly these settings."""
    return [p for p in PUBLISHED if p.model == model and _equal(p.settings, settings)]


def _equal(expected: Mapping[str, float | str], settings: Mapping[str, Any]) -> bool:
    for name, value in expected.items():
        ours = settings.get(name)
        if isinstance(value, str) or isinstance(ours, str) or ours is None:
            if ours != value:
                return False
        elif not math.isclose(ours, value):
            return False
    return True


def compare(
    model: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    full: bool,
) -> None:
    """Print whether the figures equal the published ones, to the digits that were published.

    Nothing is printed unless the data are all of the course's own file and the settings are those
    of a published run.
    """
    if not full or not is_course_file(path):
        return
    for published in matching(model, settings):
        words = []
        for key, text in published.figures.items():
            digits = len(text.partition(".")[2])
            ours = f"{figures[key]:.{digits}f}"
            words.append(f"{key} {text} ({'equal' if ours == text else f'here {ours}'})")
        print(f"  published by group {published.group}: {', '.join(words)}")


def tabulate_published(
    model: str,
    runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    dataset: Dataset,
    out: Path,
) -> None:
    """Write the published figures beside ours, for runs with the settings of a published one.

    The table ``out/published`` is left out, and an old one removed, where there is none. Its title
    says which data the figures belong to: ours are of other data unless the course's file is read.

    Parameters
    ----------
    model : str
    runs : sequence of (dict, dict)
        The settings and the figures of each run; the figures are named as in ``WORDS``.
    dataset : Dataset
    out : Path
    """
    found = [(matching(model, settings), ours) for settings, ours in runs]
    groups = sorted({p.group for known, _ in found for p in known})
    ours_of = f"{dataset.title}, {len(dataset.train):,} training examples"
    title = f"{model}: published figures, of EMNIST Letters, beside ours, of {ours_of}"
    table = Table(["settings", "figure", "ours", *(f"group {g}" for g in groups)], title)
    for known, ours in found:
        for key, words in WORDS.items():
            theirs = {p.group: p.figures[key] for p in known if key in p.figures}
            if theirs:
                values = [theirs.get(group) for group in groups]
                table.add(_in_words(known[0].settings), words, ours[key], *values)
        table.end_group()
    for file in (out / "published.csv", out / "published.md"):
        file.unlink(missing_ok=True)
    if table.rows:
        table.write(out / "published")


def _in_words(settings: Mapping[str, float | str]) -> str:
    texts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in settings.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
