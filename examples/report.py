"""Write a report of finished runs: one HTML page with its pictures in it."""

from __future__ import annotations

import sys
from pathlib import Path

from homework.page import read_run, run_folders, write_report

from minidl.files import as_path
from minidl.view.cli import Parser, run_main


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=as_path, metavar="RUN", help="a folder; all runs in it and below")
    add("--out", type=as_path, default=Path("report"), help="folder of the report (default report)")
    add("--title", default="Report", help="the heading of the page")
    args = parser.parse_args()
    runs = [read_run(folder, title) for folder, title in run_folders(args.runs).items()]
    for run in runs:
        if not run.finished:
            print(f"{run.title} is not finished; it is listed as such", file=sys.stderr)
    print(f"wrote {write_report(runs, args.out, title=args.title)}, and the same as Markdown")


if __name__ == "__main__":
    run_main(main)
