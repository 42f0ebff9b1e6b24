"""Published figures of Question 1 in 2025-26, and the comparison with ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COURSE_FILE = "4f3b704981b3eb4ec7042fdf18400eeed27af74d"
"""The git blob SHA-1 of the course's ``emnist-letters.npz``, which was not available to us."""

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "perceptron": {
        "group a": {"test": "0.6110"},
        "group b": {"best_valid": "0.6127", "selected_epoch": "6", "test": "0.6111"},
    },
    "logistic regression": {
        "group a": {"test": "0.7022"},
        "group b": {"best_valid": "0.6959134615", "selected_epoch": "20", "test": "0.6975"},
    },
    "MLP": {
        "group a": {"test": "0.8803"},
        "group b": {"best_valid": "0.8803365", "selected_epoch": "18", "test": "0.8775"},
    },
}
"""The figures of two reports, digit by digit."""


def is_course_file(path: str | os.PathLike[str]) -> bool:
    """Return whether this is the course's own ``emnist-letters.npz``, by its git blob SHA-1."""
    if not Path(path).is_file():
        return False
    digest = hashlib.sha1(f"blob {Path(path).stat().st_size}\0".encode(), usedforsecurity=False)
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == COURSE_FILE


def compare(name: str, figures: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Print whether the figures equal the published ones, to the digits that were published."""
    same_data = is_course_file(path)
    if not same_data:
        print("  not the course's own file, so the published figures are of other data:")
    for group, published in PUBLISHED[name].items():
        words = []
        for key, text in published.items():
            digits = len(text.partition(".")[2])
            ours = f"{figures[key]:.{digits}f}"
            verdict = ("equal" if ours == text else f"here {ours}") if same_data else ""
            words.append(f"{key} {text}" + (f" ({verdict})" if verdict else ""))
        print(f"  published by {group}: {', '.join(words)}")
