"""``python -m minidl.parity``: the standard set beside PyTorch, in one table.

Exit 1 if a relative difference passes its tolerance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from minidl.cli import Parser, run_main
from minidl.errors import require, whole
from minidl.files import write_text


def main() -> None:
    parser = Parser(prog="python -m minidl.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--steps", type=int, default=200, help="steps of each case (default 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how differences grow")
    args = parser.parse_args()
    whole("python -m minidl.parity", "--steps", args.steps)
    require("torch", "parity")
    # Only now: these import torch.
    from minidl.parity.standard import standard_set, summarise

    tqdm = require("tqdm", "examples").tqdm
    bar = tqdm(standard_set(), unit="case", disable=not sys.stderr.isatty())
    with one_thread():
        reports = [case.run(args.steps, args.dtype) for case in bar]


if __name__ == "__main__":
    run_main(main)
