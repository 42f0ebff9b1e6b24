"""Run all questions of 2025-26 and write a report; what is finished is not run again.

Quick by default, on generated letters: 7 minutes of processor time, most of it on all cores. After
Ctrl-C the same command goes on where it stopped.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from homework.page import read_run, write_report

from minidl import load_dataset
from minidl.checks import require
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, int_argument, run_main

TRAINING = ("--data", "--full", "--epochs", "--seed")
GRID = (*TRAINING, "--jobs")
STEPS = {
    "1.1 Perceptron": ("q1_perceptron.py", TRAINING),
    "1.2a Logistic regression": ("q1_logistic.py", TRAINING),
    "1.2b Features": ("q1_features.py", GRID),
    "1.2c Grid": ("q1_grid.py", GRID),
    "1.3 MLP": ("q1_mlp.py", TRAINING),
    "2.1 Warm-up": ("q2_warmup.py", ("--data", "--full", "-epochs", "--seed")),
    "2.2 Width": ("q2_width.py", GRID),
    "2.3 Depth": ("q2_depth.py --from {out}/q2_width", GRID),
    "3.2 Properties": ("q3_properties.py", ("--seed",)),
    "3.3 Closed forms": ("q3_closed_forms.py", ()),
    "3.5 Losses": ("q3_train.py", GRID),
}
"""Each question: its command, and those of the flags below that the command takes."""


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", metavar="PATH", help="course .npz or folder of IDX files")
    add("--full", action="store_true", default=None, help="all examples and epochs")
    add("--epochs", type=int_argument("epochs"), help="of every training")
    add("--seed", type=int_argument("seed", low=0), help="of every training")
    add("--jobs", type=int_argument("jobs"), help="processes of a grid (default: one a core)")
    add("--out", type=as_path, default=Path("runs/homework_2025"), help="folder of the results")
    questions = [title.split()[0] for title in STEPS]
    add("--only", nargs="+", choices=questions, default=questions, help="these questions only")
    args = parser.parse_args()
    require("jinja2", "examples")
    checksum = load_dataset(args.data).checksum() if args.data else None
    runs, failed = [], 0
    for title, (line, flags) in STEPS.items():
        if title.split()[0] not in args.only:
            continue
        command = [word.format(out=args.out) for word in line.split()]
        out = args.out / Path(command[0]).stem
        for flag in flags:
            value = getattr(args, flag.strip("-"))
            command += [] if value is None else [flag] if value is True else [flag, str(value)]
        failed |= run_once(title, command, out, checksum if "--data" in flags else None)
        runs.append(read_run(out, title))
    page = write_report(runs, args.out / "report", title="Homework 2025-26")
    print(f"\nwrote {page}")
    return failed


def run_once(title: str, command: Sequence[str], out: Path, data: str | None) -> int:
    """Run a script of this folder into ``out``, unless it has finished there on the same data.

    Return 1 if some runs of a grid failed; the table says why, and the next time they run again.
    """
    file, contents = out / "finished.json", to_json({"command": command, "data": data}) + "\n"
    if file.exists() and file.read_bytes() == contents.encode():
        print(f"{title}: finished before", flush=True)
        return 0
    print(f"\n{title}: {' '.join(command)}", flush=True)
    script = str(Path(__file__).with_name(command[0]))
    given, sys.argv = sys.argv, [script, *command[1:], "--out", str(out)]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = given
    if status == 130:
        raise KeyboardInterrupt(f"stopped in {title}; the same command goes on")
    if status > 1:
        sys.exit(status)  # the script has said why
    if status == 0:
        write_text(file, contents)
    return status


if __name__ == "__main__":
    run_main(main)
