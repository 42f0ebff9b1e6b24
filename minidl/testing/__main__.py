"""``python -m minidl.testing my_module:MyLayer(12, 5) --input 8x12``: check gradients from a shell.

Layers and simplex maps need the shape of an input, losses their targets too (``--targets
classes``), functions the name of the other one (``--vjp my_module:f_vjp``, ``--backward
my_module:f_backward``). What follows the colon is an expression of Python, with the names of the
module and of the adapters: ``"my_module:Cached(Affine(12, 5), W='dW')"``. ``python -m
minidl.testing package --all`` tries all that a package has.

Exits 0 if everything is right, 1 if something is wrong or rounding hides the answer, 2 if it could
not be checked.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import ContractError, is_layer
from minidl.files import to_json
from minidl.layer import Layer
from minidl.parameter import named_parameters
from minidl.testing import checks
from minidl.testing.cached import AdaptedLoss, Cached, Step
from minidl.testing.catalogue import TARGETS
from minidl.testing.options import Options
from minidl.testing.report import GradientReport, raised
from minidl.testing.subjects import title
from minidl.testing.survey import imported, survey
from minidl.view.cli import Parser, int_argument, run_main


def main() -> None:
    parser = Parser(prog="python -m minidl.testing", description="Check gradients.")
    add, seed = parser.add_argument, int_argument("seed", low=0)
    add("name", help='"module:Layer", "module:Layer(12, bias=False)", or a package with --all')
    add("--input", type=_shape, action="append", help="the shape of an input, as 8x12")
    add("--targets", choices=TARGETS, help="check a loss, with random targets of this kind")
    add("--vjp", metavar="NAME", help='check a function; this is "module:f_vjp": dx = f_vjp(x, dy)')
    add("--backward", metavar="NAME", help="check a pair: y, cache = f(x), dx = b(dy, cache)")
    add("--fixed", metavar="DICT", help="arguments that have no gradient, as \"{'p': 0.5}\"")
    add("--all", action="store_true", help="check all that a package has, and say what cannot be")
    add("--inference", action="store_true", help="check with train=False")
    add("--seed", type=seed, default=0, help="draws the batch and the directions")
    add("--json", action="store_true", help="print the report as JSON")
    add("--traceback", action="store_true", help="show where the code raised an exception")
    add("--eps", type=float, help="step of the differences (1e-5)")
    add("--rtol", type=float, help="relative tolerance (by dtype)")
    add("--atol", type=float, help="absolute tolerance (0)")
    add("--precision", choices=("float32", "float64"), help="of the numeric side")
    add("--cotangent", type=float, help="the size of the cotangent: small for clipped gradients")
    add("--numpy-seed", type=seed, help="seeds NumPy's and Python's generators before every pass")
    add("--skip", action="append", metavar="CONDITION", help="leave a side condition out, by name")
    add("--sweep", action="store_true", default=None, help="also other inputs: larger, fewer rows")
    args = parser.parse_args()
    if args.all == (args.input is not None):
        parser.error("--input: expected the shape of the batch, as 8x12, or --all for a package")
    shared = {field.name for field in fields(Options)} - {"name", "traceback"}
    options = {k: v for k, v in vars(args).items() if k in shared and v is not None}
    sys.path.insert(0, str(Path.cwd()))
    try:
        report = survey(args.name, **options) if args.all else check_named(args, options)
    except ContractError as error:
        print(to_json({"passed": False, "failures": [str(error)]}) if args.json else error)
        sys.exit(1)
    except Exception as error:
        if args.traceback:
            raise
        print(f"error: {raised(error)}", file=sys.stderr)
        sys.exit(2)
    print(to_json(report.to_json(), indent=2) if args.json else report)
    sys.exit(not report)


def check_named(args: argparse.Namespace, options: dict[str, Any]) -> GradientReport:
    """Check what the command line names."""
    rng = np.random.default_rng(args.seed)
    options = {"rng": rng, "traceback": True, **options}
    found, other = load(args.name), args.vjp or args.backward
    as_it_is = is_layer(found) or hasattr(found, "vjp") or args.targets or other
    if isinstance(found, type) or (callable(found) and not as_it_is):
        found = found()
    if isinstance(found, Layer):
        found.initialize(rng)
    own = [p.value for _, p in named_parameters(found)] if is_layer(found) else []
    dtype = np.result_type(*own) if own else np.float64
    inputs = tuple(np.asarray(rng.standard_normal(shape), dtype) for shape in args.input)
    if args.targets:
        return checks.check_loss(found, inputs[0], TARGETS[args.targets](rng, inputs[0]), **options)
    if hasattr(found, "vjp"):
        return checks.check_simplex_map(found, inputs[0], **options)
    module, _, call = args.name.partition(":")
    options["fixed"] = load(f"{module}:{args.fixed}") if args.fixed else None
    if other:
        check = checks.check_function if args.vjp else checks.check_pair
        return check(found, load(other), inputs, **options)
    if "(" in call and "(" not in title(found):
        options["name"] = call
    return checks.check_layer(found, inputs, train=not args.inference, **options)


def load(text: str) -> Any:
    """Return the value of an expression in a module, as ``"module:name(1, key=2)"``."""
    module_name, _, expression = text.partition(":")
    names = {kind.__name__: kind for kind in (AdaptedLoss, Cached, Step)}
    names |= vars(imported(module_name))
    try:
        code = compile(expression, text, "eval")
    except SyntaxError:
        raise ValueError(f"expected module:Layer or module:Layer(12, 5), got {text!r}") from None
    return eval(code, names)  # noqa: S307 - of the one who runs the command


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected a shape as 8x12, got {text!r}")
    return tuple(map(int, text.split("x")))


if __name__ == "__main__":
    run_main(main)
