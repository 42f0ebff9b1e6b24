"""``python -m minidl.testing my_module:MyLayer(12, 5) --input 8x12``: check gradients from a shell.

Layers and simplex maps need the shape of an input, losses their targets too (``--targets
classes``), functions the name of the other one (``--vjp my_module:f_vjp``, ``--backward
my_module:f_backward``). ``python -m minidl.testing package --all`` tries all that a package has.

Exits 0 if everything is right, 1 if something is wrong or rounding hides the answer, 2 if it could
not be checked.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import ContractError, did_you_mean, is_layer
from minidl.files import to_json
from minidl.layer import Layer
from minidl.parameter import named_parameters
from minidl.testing import catalogue, checks
from minidl.testing.report import GradientReport, raised
from minidl.testing.subjects import title
from minidl.testing.survey import survey
from minidl.view.cli import Parser, int_argument, run_main

TARGETS = {
    name: getattr(catalogue, name)
    for name in (
        "classes",
        "distributions",
        "signs",
        "several_labels",
        "probabilities",
        "counts",
        "numbers",
    )
}


def main() -> None:
    parser = Parser(prog="python -m minidl.testing", description="Check gradients.")
    add, seed = parser.add_argument, int_argument("seed", low=0)
    add("name", help='"module:Layer", "module:Layer(12, bias=False)", or a package with --all')
    add("--input", type=_shape, action="append", help="the shape of an input, as 8x12")
    add("--targets", choices=TARGETS, help="check a loss, with random targets of this kind")
    add("--vjp", metavar="NAME", help='check a function; this is "module:f_vjp": dx = f_vjp(x, dy)')
    add(
        "--backward",
        metavar="NAME",
        help="check a pair: y, cache = f(x), dx = f_backward(dy, cache)",
    )
    add("--fixed", type=_literal, help="arguments that have no gradient, as \"{'p': 0.5}\"")
    add("--all", action="store_true", help="check all that a package has, and say what cannot be")
    add("--dtype", choices=("float32", "float64"), help="default: the layer's own")
    add("--inference", action="store_true", help="check with train=False")
    add("--seed", type=seed, default=0, help="draws the batch and the directions")
    add("--eps", type=float, help="step of the differences (1e-5)")
    add("--rtol", type=float, help="relative tolerance (by dtype)")
    add("--atol", type=float, help="absolute tolerance (by dtype)")
    add("--precision", choices=("float32", "float64"), help="of the numeric side")
    add("--cotangent", type=float, help="the size of the cotangent: small for clipped gradients")
    add("--numpy-seed", type=seed, help="seeds NumPy's and Python's generators before every pass")
    add("--skip", action="append", metavar="CONDITION", help="leave a side condition out, by name")
    add("--sweep", action="store_true", help="also other inputs: larger, one row, no rows")
    add("--json", action="store_true", help="print the report as JSON")
    add("--traceback", action="store_true", help="show where the code raised an exception")
    args = parser.parse_args()
    if args.all == (args.input is not None):
        parser.error("--input: expected the shape of the batch, as 8x12, or --all for a package")
    given = ("eps", "rtol", "atol", "precision", "cotangent", "numpy_seed", "skip", "sweep")
    options = {key: v for key in given if (v := getattr(args, key)) is not None and v is not False}
    try:
        report = survey(_at_hand(args.name), **options) if args.all else check_named(args, options)
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
    function = args.vjp or args.backward
    found = load(args.name, make=not function, function=bool(args.targets))
    if isinstance(found, Layer):
        found.initialize(rng, args.dtype)
    own = [p.value.dtype for _, p in named_parameters(found)] if is_layer(found) else []
    dtype = args.dtype or (np.result_type(*own) if own else np.float64)
    inputs = tuple(np.asarray(rng.standard_normal(shape), dtype) for shape in args.input)
    options = {"rng": rng, **options}
    if function:
        check = checks.check_function if args.vjp else checks.check_pair
        other = load(function, make=False)
        return check(found, other, inputs, fixed=args.fixed, **options)
    if args.targets:
        return checks.check_loss(found, inputs[0], TARGETS[args.targets](rng, inputs[0]), **options)
    if callable(getattr(found, "vjp", None)):
        return checks.check_simplex_map(found, inputs[0], **options)
    call = args.name.partition(":")[2]
    if "(" in call and "(" not in title(found):
        options["name"] = call
    return checks.check_layer(found, inputs, fixed=args.fixed, train=not args.inference, **options)


def load(text: str, *, make: bool, function: bool = False) -> Any:
    """Return the object that ``"module:name"`` or ``"module:name(1, key=2)"`` stands for.

    With ``make``, a class is called, and unless ``function``, a function that makes a layer;
    arguments are literals.
    """
    module_name, colon, expression = text.partition(":")
    if not colon or not module_name:
        raise ValueError(f"expected module:Layer, got {text!r}")
    try:
        body = ast.parse(expression, mode="eval").body
        call = body if isinstance(body, ast.Call) else ast.Call(body, [], [])
        if not isinstance(call.func, ast.Name):
            raise SyntaxError("no name")
        args = [ast.literal_eval(a) for a in call.args]
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"expected module:Layer or module:Layer(12, 5), got {text!r}") from None
    try:
        module, name = importlib.import_module(_at_hand(module_name)), call.func.id
    except (Exception, SystemExit) as error:  # not 0 or 1, the statuses of a verdict
        raise ImportError(f"{module_name} cannot be imported: {error!r}") from error
    found = getattr(module, name, None)
    if found is None:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{module_name} has no {name!r}{did_you_mean(name, names)}")
    ready = is_layer(found) or hasattr(found, "vjp") or function
    if call is not body and (not make or (ready and not isinstance(found, type))):
        return found
    if not callable(found):
        raise TypeError(f"{text}: expected a layer, or a function that makes one, got {found!r}")
    try:
        inspect.signature(found).bind(*args, **options)
    except TypeError as error:  # a function without a signature is called as it is
        raise TypeError(
            f"{text}: {error}; write the arguments of {name}{inspect.signature(found)}, as "
            f'"{module_name}:{name}(12, 5)"'
        ) from None
    except ValueError:
        pass
    return found(*args, **options)


def _at_hand(module: str) -> str:
    """Return the name of a module, which may lie in the current folder."""
    if not any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path):
        sys.path.insert(0, str(Path.cwd()))
    return module


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected a shape as 8x12, got {text!r}")
    return tuple(map(int, text.split("x")))


def _literal(text: str) -> dict[str, Any]:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a dictionary as \"{{'p': 0.5}}\", got {text!r}")
    return value


if __name__ == "__main__":
    run_main(main)
