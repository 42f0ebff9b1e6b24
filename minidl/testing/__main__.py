"""``python -m minidl.testing my_module:MyLayer(12, 5) --input 8x12``: check a layer from a shell.

Exits 0 if the layer is right, 1 if it is wrong, 2 if it could not be checked.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import ContractError, did_you_mean, is_layer
from minidl.files import to_json
from minidl.layer import Layer
from minidl.parameter import named_parameters
from minidl.testing.checks import check_layer
from minidl.testing.networks import check_random_network
from minidl.view.cli import Parser, int_argument, run_main


def main() -> None:
    parser = Parser(prog="python -m minidl.testing", description="Check gradients.")
    add = parser.add_argument
    add("layer", nargs="?", help='"module:Layer", or with arguments "module:Layer(12, bias=False)"')
    add("--input", type=_shape, help="the shape of the batch, as 8x12")
    add("--dtype", choices=("float32", "float64"), help="default: the layer's own")
    add("--inference", action="store_true", help="check with train=False")
    seed = int_argument("seed", low=0)
    add("--seed", type=seed, default=0, help="draws the batch and the directions")
    add("--eps", type=float, help="step of the differences (1e-5)")
    add("--rtol", type=float, help="relative tolerance (by dtype)")
    add("--atol", type=float, help="absolute tolerance (by dtype)")
    add("--sweep", action="store_true", help="also other inputs: larger, one row, no rows")
    add("--json", action="store_true", help="print the report as JSON")
    add("--networks", type=int_argument("N"), metavar="N", help="check N random right networks")
    args = parser.parse_args()
    if (args.layer is None) == (args.networks is None):
        parser.error("expected a layer as module:Layer, or --networks N")
    if args.networks is not None:
        passed = check_networks(range(args.seed, args.seed + args.networks))
    else:
        if args.input is None:
            parser.error("--input: expected the shape of the batch, as 8x12")
        passed = check_named(args)
    if not passed:
        sys.exit(1)


def check_named(args: argparse.Namespace) -> bool:
    """Check the layer that the command line names, and print the report."""
    layer, rng = load_layer(args.layer), np.random.default_rng(args.seed)
    if isinstance(layer, Layer):
        layer.initialize(rng, args.dtype)
    own = [p.value.dtype for _, p in named_parameters(layer)]
    dtype = args.dtype or (np.result_type(*own) if own else np.float64)
    x = np.asarray(rng.standard_normal(args.input), dtype)
    numbers = {key: getattr(args, key) for key in ("eps", "rtol", "atol")}
    try:
        report = check_layer(
            layer, x, train=not args.inference, rng=rng, sweep=args.sweep, **numbers
        )
    except ContractError as error:
        print(to_json({"passed": False, "failures": [str(error)]}) if args.json else error)
        return False
    print(to_json(report.to_json(), indent=2) if args.json else report)
    return bool(report)


def load_layer(text: str) -> Any:
    """Return the object that ``"module:name"`` or ``"module:name(1, key=2)"`` stands for.

    A class, or a function that makes a layer, is called; arguments are literals.
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
    if not any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        module, name = importlib.import_module(module_name), call.func.id
    except (Exception, SystemExit) as error:  # not 0 or 1, the statuses of a verdict
        raise ImportError(f"{module_name} cannot be imported: {error!r}") from error
    found = getattr(module, name, None)
    if found is None:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{module_name} has no {name!r}{did_you_mean(name, names)}")
    if is_layer(found) and call is not body:
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


def check_networks(seeds: range) -> bool:
    """Check random networks that are right; return whether none raised a false alarm."""
    verdicts: Counter[str] = Counter()
    alarms = 0
    for seed in seeds:
        report = check_random_network(seed)
        verdicts.update(tensor.verdict for tensor in report.tensors)
        if report.failures:
            alarms += 1
            print(f"network {seed}:\n{report}\n")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))
    print(f"{len(seeds):,} random networks, {alarms} false alarms; tensors: {counts}")
    return not alarms


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected a shape as 8x12, got {text!r}")
    return tuple(map(int, text.split("x")))


if __name__ == "__main__":
    run_main(main)
