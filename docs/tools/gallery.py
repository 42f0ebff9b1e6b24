"""Run the examples on their quick settings; keep their pictures and how long they take.

    python docs/tools/gallery.py            # all of them, one after the other: about 25 minutes
    python docs/tools/gallery.py q1_losses  # those whose name contains this

Each command runs as a reader types it, in an empty folder. The pictures go to ``docs/pictures/``,
in fewer colours and at most 1,000 pixels wide; the seconds and what it prints go to
``docs/gallery.json``. ``docs/gallery.md`` is written from that file, and a test compares
``docs/homework.md`` with it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import minidl

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WIDTH, COLORS, LINES = 1000, 128, 12


@dataclass(frozen=True)
class Entry:
    """A command, and the pictures it writes that are kept."""

    name: str
    command: str
    title: str
    pictures: tuple[str, ...] = ()
    """Patterns of file names; a history (``.json``) is drawn here."""


BASICS = "To start from"
YEAR25 = "The homework of 2025-26"
YEAR24 = "The homework of 2024-25"
YEAR21 = "The homework of 2021-22"

ENTRIES = {
    BASICS: [
        Entry(
            "quickstart",
            "quickstart.py",
            "Train, evaluate, save, load and draw a small network",
            ("quickstart.png",),
        ),
        Entry("own_layer", "own_layer.py", "Write a convolution, check it and train it"),
        Entry("regression", "regression.py", "A network beside least squares"),
        Entry("resume", "resume.py", "Interrupt a run, and go on to the last bit"),
        Entry(
            "sklearn_pipeline",
            "sklearn_pipeline.py",
            "A mixed table, a search, calibration, and an ONNX file",
            ("displays.png",),
        ),
    ],
    YEAR25: [
        Entry(
            "q1_perceptron",
            "q1_perceptron.py",
            "1.1: the perceptron, its curves and its weights",
            ("curves.png", "weights.png"),
        ),
        Entry(
            "q1_logistic",
            "q1_logistic.py",
            "1.2a: logistic regression",
            ("curves.png",),
        ),
        Entry(
            "q1_logistic-pool",
            "q1_logistic.py --features pool",
            "1.2b: the same on averages of 2x2 pixels",
            ("curves.png",),
        ),
        Entry(
            "q1_logistic-pca",
            "q1_logistic.py --features pca",
            "1.2b: the same on 90 principal components",
            ("curves.png",),
        ),
        Entry(
            "q1_features",
            "q1_features.py",
            "1.2b: letters from their principal components and from their averages",
            ("features.png",),
        ),
        Entry(
            "q1_grid",
            "q1_grid.py",
            "1.2c: the grid of twelve",
        ),
        Entry(
            "q1_mlp",
            "q1_mlp.py",
            "1.3: 100 hidden units, one example at a time",
            ("curves.png",),
        ),
        Entry(
            "q2_warmup",
            "q2_warmup.py",
            "2.1: one network, with the course's defaults",
            ("ffn-history-*.json",),
        ),
        Entry(
            "q2_width",
            "q2_width.py",
            "2.2: accuracy against width, and the curves of the best of 80 networks",
            ("accuracy-by-width.png", "best-curves.png"),
        ),
        Entry(
            "q2_width-wide",
            "q2_width.py --wide --learning-rates 0.001 --dropouts 0 --l2s 0",
            "2.2c: training accuracy up to 1,024 hidden units",
            ("accuracy-by-width.png",),
        ),
        Entry(
            "infinite_width",
            "infinite_width.py --layers 1 3 5 7 9",
            "2.2c, 2.3: infinite width, exactly, at several depths",
            ("accuracy-by-layers.png",),
        ),
        Entry(
            "infinite_convergence",
            "infinite_convergence.py",
            "2.2c: wide networks become their kernels",
            ("convergence.png", "training.png"),
        ),
        Entry(
            "q2_depth",
            "q2_depth.py",
            "2.3: accuracy against depth",
            ("accuracy-by-layers.png", "best-curves.png", "flatness.png"),
        ),
        Entry(
            "q2_depth-why",
            "q2_depth.py --why",
            "2.3: gradients of deep networks under SGD, plain and with remedies",
            ("why-plain-sgd*.png", "why-he*sgd*.png"),
        ),
        Entry(
            "q3_closed_forms",
            "q3_closed_forms.py",
            "3.3: two classes, drawn",
            ("closed-forms.png",),
        ),
        Entry("q3_properties", "q3_properties.py", "3.2: three properties of the maps"),
        Entry(
            "q3_train",
            "q3_train.py",
            "3.5: one network with four losses",
            ("training.png",),
        ),
    ],
    YEAR24: [
        Entry(
            "landscapes-q1",
            "landscapes.py q1",
            "1: linear models and a network, norms and weights under L2 and L1",
            ("accuracy.png", "norms.png", "weights.png"),
        ),
        Entry(
            "landscapes-q21",
            "landscapes.py q2.1",
            "2.1: logistic regression, three rates",
            ("curves.png",),
        ),
        Entry(
            "landscapes-q22",
            "landscapes.py q2.2",
            "2.2: batch size, dropout, momentum",
            ("batch.png", "dropout.png", "momentum.png"),
        ),
        Entry(
            "quadratic_network",
            "quadratic_network.py",
            "3.4: gradient descent beside the global minimum",
            ("gaps.png",),
        ),
    ],
    YEAR21: [
        Entry(
            "q1_losses",
            "q1_losses.py",
            "1, 2.1, 3.2a: losses, a loss that is not convex, and a linear network",
            (
                "sigmoid-and-logistic.png",
                "sine-surface.png",
                "collapse.png",
            ),
        ),
        Entry(
            "ames-linear",
            "ames_regression.py linear",
            "2.2: house prices by SGD, and the distance to the ridge solution",
            ("errors.png", "distance.png"),
        ),
        Entry(
            "ames-mlp",
            "ames_regression.py mlp",
            "2.3: house prices by a network",
            ("errors.png",),
        ),
        Entry(
            "fashion-perceptron",
            "fashion.py perceptron",
            "3.1a: the perceptron",
            ("curves.png",),
        ),
        Entry(
            "fashion-logistic",
            "fashion.py logistic",
            "3.1b, 4.1: logistic regression",
            ("curves*.png",),
        ),
        Entry("fashion-mlp", "fashion.py mlp", "3.2b: 200 hidden units", ("curves*.png",)),
        Entry(
            "fashion-ffn",
            "fashion.py ffn",
            "4.2, 4.3: feed-forward networks",
            ("curves*.png", "accuracy*.png", "best-curves*.png"),
        ),
    ],
}

LEFT_OUT = {"homework_2025.py", "report.py", "cluster.py", "grade_question1.py"}
"""Scripts that run the others, show their results, or write a notebook."""

RECORD = DOCS / "gallery.json"


def run(entry: Entry) -> dict[str, Any]:
    """Run a command in an empty folder; keep its pictures; return its record."""
    script, *args = entry.command.split()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own examples
            [sys.executable, str(ROOT / "examples" / script), *args],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{entry.command}: {done.stderr}")
        pictures = keep(entry, list(written(folder, entry)))
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    what = {"command": entry.command, "pictures": pictures, "output": lines}
    return {"seconds": round(seconds, 1), **what}


def written(folder: Path, entry: Entry) -> Iterator[Path]:
    """Yield the pictures of a run, in the order of the entry; draw those kept as a history."""
    for pattern in entry.pictures:
        for path in sorted(folder.rglob(pattern)):
            if path.suffix == ".json":
                drawn = folder / "history.png"
                minidl.History.from_json(path).plot(drawn)
                path = drawn
            yield path


def keep(entry: Entry, paths: list[Path]) -> list[str]:
    """Write smaller copies of pictures to ``docs/pictures``; return their names."""
    stems, names = [path.stem for path in paths], []
    for path in paths:
        stem = path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}-{path.stem}"
        names.append(f"{entry.name}-{stem.removeprefix('why-').replace('+', '-')}.png")
        picture = Image.open(path).convert("RGB")
        if picture.width > WIDTH:
            size = WIDTH, round(picture.height * WIDTH / picture.width)
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture.quantize(COLORS).save(DOCS / "pictures" / names[-1], optimize=True)
    return names


def page(records: dict[str, dict[str, Any]]) -> str:
    """Return the page of the gallery; ``records`` has one of each entry."""
    lines = [
        "# Gallery",
        "",
        "Every example with its picture, or the end of its output, and how long it takes, on",
        "generated data and quick settings. The seconds are of one run each on two cores of a",
        "shared virtual machine that had other work at the same time: a quiet one takes less.",
        "`python docs/tools/gallery.py` runs the examples, measures them and writes this page.",
        "",
    ]
    for entry in (entry for group in ENTRIES.values() for entry in group):
        for name in records[entry.name]["pictures"][:1]:
            link = f"[![{alternative(entry, name)}](pictures/{name}){{.thumbnail}}]"
            lines.append(f"{link}(#{slug(entry.title)})")
    for section, entries in ENTRIES.items():
        lines += ["", f"## {section}"]
        for entry in entries:
            record = records[entry.name]
            seconds = (
                f"{record['seconds']:.2g}"
                if record["seconds"] < 100
                else f"{record['seconds']:.0f}"
            )
            stem = entry.command.partition(".py")[0]
            link = f'<a href="notebooks/{stem}.ipynb" download>as a notebook</a>'
            command = f"`python examples/{entry.command}`: {seconds} seconds; {link}"
            lines += ["", f"### {entry.title}", "", command]
            for name in record["pictures"]:
                lines += ["", f"![{alternative(entry, name)}](pictures/{name})"]
            if not record["pictures"]:
                lines += ["", "```text", *record["output"][-LINES:], "```"]
    return "\n".join(lines) + "\n"


def slug(title: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def alternative(entry: Entry, picture: str) -> str:
    """Return the alternative text of a picture: the title and the name of the file."""
    words = picture.removeprefix(entry.name).removesuffix(".png").strip("-").replace("-", " ")
    return f"{entry.title}: {words}"


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    entries = [entry for group in ENTRIES.values() for entry in group]
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    (DOCS / "pictures").mkdir(exist_ok=True)
    records = old
    for entry in entries:
        if wanted in entry.name:
            old[entry.name] = run(entry)
            print(f"{entry.command}: {old[entry.name]['seconds']} s", flush=True)
            records = {entry.name: old[entry.name] for entry in entries if entry.name in old}
            RECORD.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    (DOCS / "gallery.md").write_text(page(records), encoding="utf-8")


if __name__ == "__main__":
    main()
