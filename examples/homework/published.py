"""Published figures of 2025-26, and their table beside ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from homework.checksums import git_name
from homework.figures import WORDS
from minidl import Dataset
from minidl.view.tables import Table

COURSE_FILE = "4f3b704981b3eb4ec7042fdf18400eeed27af74d"
"""The name in git of the course's ``emnist-letters.npz``, which was not available to us."""
Figures = Mapping[str, Any]
PERCEPTRON = {"model": "perceptron", "epochs": 20}
LOGISTIC = {"model": "logistic regression", "epochs": 20, "features": "raw"}
LOGISTIC |= {"lr": 1e-4, "l2": 1e-5, "l1": 0.0}
MLP = {"model": "MLP", "epochs": 20, "width": 100, "lr": 1e-3, "l2": 0.0}
NETWORK = {"model": "network", "layers": 1, "width": 32, "epochs": 30, "learning_rate": 1e-3}
NETWORK |= {"dropout": 0.0, "l2": 1e-4, "optimizer": "adam", "batch_size": 64}
DEPTH_3 = {"best_valid": "0.8683", "train": "0.8905", "last_train": "0.8824", "test": "0.8646"}

PUBLISHED: Sequence[tuple[str, Figures, Mapping[str, str]]] = (
    ("a", PERCEPTRON, {"test": "0.6110"}),
    ("b", PERCEPTRON, {"best_valid": "0.6127", "selected_epoch": "6", "test": "0.6111"}),
    ("a", LOGISTIC, {"test": "0.7022"}),
    ("b", LOGISTIC, {"best_valid": "0.6959134615", "selected_epoch": "20", "test": "0.6975"}),
    ("b", {**LOGISTIC, "features": "pool"}, {"best_valid": "0.6544", "test": "0.6521"}),
    ("a", MLP, {"test": "0.8803"}),
    ("b", MLP, {"best_valid": "0.8803365", "selected_epoch": "18", "test": "0.8775"}),
    ("a", {**LOGISTIC, "lr": 1e-3, "l2": 1e-4}, {"best_valid": "0.7206", "test": "0.7222"}),
    ("b", {**LOGISTIC, "lr": 1e-3}, {"best_valid": "0.7200", "test": "0.7209"}),
    ("a", {**NETWORK, "width": 256}, {"best_valid": "0.9059", "train": "0.9523", "test": "0.9030"}),
    ("a", NETWORK, {"best_valid": "0.8452"}),
    ("a", {**NETWORK, "layers": 3}, DEPTH_3),
    ("a", {**NETWORK, "layers": 5}, {"best_valid": "0.8660"}),
    ("a", {**NETWORK, "layers": 7}, {"best_valid": "0.8411"}),
    ("a", {**NETWORK, "layers": 9}, {"best_valid": "0.8037"}),
)
"""The group of each report, the settings that its figures belong to, and these digit by digit."""


def is_course_file(path: str | os.PathLike[str]) -> bool:
    """Return whether this is the course's own ``emnist-letters.npz``, by its name in git."""
    return Path(path).is_file() and git_name(Path(path).read_bytes()) == COURSE_FILE


def tabulate_published(
    model: str, runs: Sequence[tuple[Figures, Figures]], dataset: Dataset, out: Path
) -> None:
    """Write the table ``out/published``: published figures beside those of runs of their settings.

    ``runs`` holds the settings and the figures, named as in ``WORDS``, of each run. Where there is
    none of a published one, an old table is removed. Ours are of other data, as the title says.
    """
    matches = []
    for settings, ours in runs:
        given = {"model": model, **settings}.items()
        matches.append((ours, [one for one in PUBLISHED if one[1].items() <= given]))
    groups = sorted({group for _, known in matches for group, _, _ in known})
    ours_of = f"{dataset.title}, {len(dataset.train):,} training examples"
    title = f"{model}: published figures, of EMNIST Letters, beside ours, of {ours_of}"
    table = Table(["settings", "figure", "ours", *(f"group {g}" for g in groups)], title)
    for ours, known in matches:
        for key, words in WORDS.items():
            if theirs := {group: figures[key] for group, _, figures in known if key in figures}:
                name = in_words({k: v for k, v in known[0][1].items() if k != "model"})
                table.add(name, words, ours[key], *map(theirs.get, groups))
        table.end_group()
    for suffix in ("csv", "md"):
        (out / f"published.{suffix}").unlink(missing_ok=True)
    if table.rows:
        table.write(out / "published")


def in_words(settings: Figures) -> str:
    """Return settings in words, as ``width 256, learning rate 0.001``."""
    texts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in settings.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
