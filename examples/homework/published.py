"""Published figures of 2025-26, and the comparison with ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from homework.checksums import git_name
from homework.figures import WORDS
from minidl.dataset import Dataset
from minidl.view.tables import Table

COURSE_FILE = "4f3b704981b3eb4ec7042fdf18400eeed27af74d"
"""The name in git of the course's ``emnist-letters.npz``, which was not available to us."""
Figures = Mapping[str, Any]


class Published(NamedTuple):
    """The figures of one report, digit by digit, and the settings that they belong to."""

    model: str
    group: str
    settings: Figures
    figures: Mapping[str, str]


Base = tuple[str, Figures]
"""The name of a model, and settings."""
PERCEPTRON: Base = "perceptron", {"epochs": 20}
LOGISTIC: Base = (
    "logistic regression",
    {"epochs": 20, "features": "raw", "lr": 1e-4, "l2": 1e-5, "l1": 0.0},
)
MLP: Base = "MLP", {"epochs": 20, "width": 100, "lr": 1e-3, "l2": 0.0}
ADAM = {"learning_rate": 1e-3, "dropout": 0.0, "l2": 1e-4, "optimizer": "adam", "batch_size": 64}
NETWORK: Base = "network", {"layers": 1, "width": 32, "epochs": 30, **ADAM}


def _of(base: Base, group: str, changes: Figures | None = None, **figures: str) -> Published:
    return Published(base[0], group, {**base[1], **(changes or {})}, figures)


PUBLISHED = (
    _of(PERCEPTRON, "a", test="0.6110"),
    _of(PERCEPTRON, "b", best_valid="0.6127", selected_epoch="6", test="0.6111"),
    _of(LOGISTIC, "a", test="0.7022"),
    _of(LOGISTIC, "b", best_valid="0.6959134615", selected_epoch="20", test="0.6975"),
    _of(LOGISTIC, "b", {"features": "pool"}, best_valid="0.6544", test="0.6521"),
    _of(MLP, "a", test="0.8803"),
    _of(MLP, "b", best_valid="0.8803365", selected_epoch="18", test="0.8775"),
    _of(LOGISTIC, "a", {"lr": 1e-3, "l2": 1e-4}, best_valid="0.7206", test="0.7222"),
    _of(LOGISTIC, "b", {"lr": 1e-3}, best_valid="0.7200", test="0.7209"),
    _of(NETWORK, "a", {"width": 256}, best_valid="0.9059", train="0.9523", test="0.9030"),
    _of(NETWORK, "a", best_valid="0.8452"),
    _of(
        NETWORK,
        "a",
        {"layers": 3},
        best_valid="0.8683",
        train="0.8905",
        last_train="0.8824",
        test="0.8646",
    ),
    _of(NETWORK, "a", {"layers": 5}, best_valid="0.8660"),
    _of(NETWORK, "a", {"layers": 7}, best_valid="0.8411"),
    _of(NETWORK, "a", {"layers": 9}, best_valid="0.8037"),
)


def is_course_file(path: str | os.PathLike[str]) -> bool:
    """Return whether this is the course's own ``emnist-letters.npz``, by its name in git."""
    return Path(path).is_file() and git_name(Path(path).read_bytes()) == COURSE_FILE


def matching(model: str, settings: Figures) -> list[Published]:
    """Return the published figures of this model that belong to exactly these settings."""
    return [p for p in PUBLISHED if p.model == model and p.settings.items() <= settings.items()]


def compare(
    model: str, settings: Figures, figures: Figures, path: str | os.PathLike[str], *, full: bool
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
    model: str, runs: Sequence[tuple[Figures, Figures]], dataset: Dataset, out: Path
) -> None:
    """Write the table ``out/published``: published figures beside those of runs of their settings.

    ``runs`` holds the settings and the figures, named as in ``WORDS``, of each run. Where there is
    none of a published one, the table is left out, and an old one removed. Its title says which
    data the figures belong to: ours are of other data unless the course's file is read.
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
                table.add(in_words(known[0].settings), words, ours[key], *values)
        table.end_group()
    for file in (out / "published.csv", out / "published.md"):
        file.unlink(missing_ok=True)
    if table.rows:
        table.write(out / "published")


def in_words(settings: Figures) -> str:
    """Return settings in words, as ``width 256, learning rate 0.001``."""
    texts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in settings.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
