"""Measure the tests: change the library in one place at a time, and count the changes they notice.

    python tests/mutants.py --number 400            # sample, run, write mutants.csv; resumes
    python tests/mutants.py --again survived        # run the recorded survivors once more, where
                                                    # the present code still has them
    python tests/mutants.py --again survived --wide # with the tests of all modules
    python tests/mutants.py --module optim.py --show

A mutant is ``minidl/`` with one expression or statement changed: a comparison operator, an
arithmetic operator, ``and`` and ``or``, a negated condition, a constant, a unary minus, two swapped
arguments, a keyword argument left out, or a statement left out. Strings, annotations, docstrings
and ``repr`` texts are left alone.

A survivor that changes nothing one can observe, or a constant that is a free choice, may be marked
in the table by hand: the outcome ``equivalent``, with the reason in ``noticed_by``.

For each mutant the test files of its module (``test_files``), or with ``--wide`` all that call the
function, run in a copy of the tree, in a forked process with a limit of CPU time, until one test
fails. pytest does not collect this file.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import hashlib
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "minidl"
COPIED = (
    "minidl", "tests", "examples", "benchmarks", "docs", ".ci", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "pyproject.toml", "setup.cfg",
)  # fmt: skip

PRELOADED = (
    "numpy", "pytest", "hypothesis.extra.numpy", "torch", "torch._dynamo", "entmax", "tqdm", "rich.table",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "threadpoolctl", "safetensors.numpy",
)  # fmt: skip

Survey_ = dict[str, dict[str, Any]]
"""By test file: ``on_import``, functions, and ``tests``, duration and functions by name."""

SCRIPTS = {"attacks", "docs", "examples"}
"""Folders whose tests run scripts: left out with ``--wide``, and slow."""

LEFT_ALONE = {"__repr__"}
"""Functions that are not changed, by name."""

IGNORED = {"encoding", "lineterminator", "strict"}
"""Keyword arguments that change nothing where the code is right and the locale is UTF-8."""

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,), ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip


@dataclass
class Mutant:
    """One change of one module, and what became of it."""

    module: str
    function: str
    before: str
    after: str
    count: int
    """The number of equal changes before it in the same function."""
    line: int = 0
    start: int = 0
    """The first line of the function, with its decorators; 0 outside of functions."""
    outcome: str = ""
    seconds: float = 0.0
    noticed_by: str = ""
    moved_to: str = ""
    """The module that has the code now, if it was moved since the table was written; not written."""

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What names the mutant, also after changes elsewhere in the module."""
        return self.module, self.function, self.before, self.after, self.count

    @property
    def place(self) -> str:
        """The module that is changed."""
        return self.moved_to or self.module


# ---------------------------------------------------------------- making mutants


def changes(node: ast.AST) -> Iterator[str]:
    """Yield the source of each change of one node, not of those inside it."""

    def changed(**attributes: object) -> str:
        other = copy(node)
        vars(other).update(attributes)
        return f"({ast.unparse(other)})"

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for swap in SWAPS[type(op)]:
                    yield changed(ops=[*ops[:i], swap(), *ops[i + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in SWAPS:
            yield from (changed(op=swap()) for swap in SWAPS[type(op)])
        case ast.AugAssign(op=op):
            yield from (changed(op=swap())[1:-1] for swap in SWAPS.get(type(op), ()))
            yield "pass"
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield from (f"({value + 1})", f"({value - 1})")
        case ast.Constant(value=float(value)):
            yield repr(2 * value if value else 1.0)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Call(args=args, keywords=keywords):
            plain = not any(isinstance(a, ast.Starred) for a in args[:2])
            if len(args) > 1 and plain and ast.dump(args[0]) != ast.dump(args[1]):
                yield changed(args=[args[1], args[0], *args[2:]])
            for i, keyword in enumerate(keywords):
                if keyword.arg not in IGNORED:
                    yield changed(keywords=keywords[:i] + keywords[i + 1 :])
        case ast.Raise():
            yield "pass"
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Break() | ast.Continue():
            yield "break" if isinstance(node, ast.Continue) else "continue"


def nodes(
    tree: ast.AST, module: str, function: str = "", start: int = 0
) -> Iterator[tuple[str, int, ast.AST, str]]:
    """Yield (function, its first line, node, change) for all changes of a module."""
    for field, child in ast.iter_fields(tree):
        if field in ("annotation", "returns", "type_comment", "decorator_list"):
            continue
        if isinstance(tree, ast.keyword) and tree.arg in IGNORED:
            continue
        for node in child if isinstance(child, list) else [child]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr):
                continue
            inside, first = function, start
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                if node.name in LEFT_ALONE:
                    continue
                inside = f"{function}.{node.name}".lstrip(".")
                if isinstance(node, ast.FunctionDef) and not start:
                    first = min(n.lineno for n in (node, *node.decorator_list))
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
                continue
            if function or not isinstance(node, ast.BinOp):  # outside of functions: type aliases
                yield from ((inside, first, node, change) for change in changes(node))
            if field == "test" and not isinstance(node, (ast.Compare, ast.UnaryOp)):
                yield inside, first, node, f"(not ({ast.unparse(node)}))"
            yield from nodes(node, module, inside, first)


def all_mutants(module: str) -> list[tuple[Mutant, bytes]]:
    """Return the mutants of a module, each with the module's changed source."""
    source = (PACKAGE / module).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found, seen = [], Counter()
    for function, start, node, after in nodes(ast.parse(source), module):
        low = starts[node.lineno - 1] + node.col_offset
        high = starts[node.end_lineno - 1] + node.end_col_offset
        changed = source[:low] + after.encode() + source[high:]
        name = module, function, ast.unparse(node), after
        found.append((Mutant(*name, seen[name], node.lineno, start), changed))
        seen[name] += 1
    return found


def sample(number: int, seed: int, only: str) -> list[tuple[Mutant, bytes]]:
    """Return mutants at random, in proportion to the number of each module's.

    A larger sample with the same seed contains a smaller one, and a change of the source changes
    the choice little: each mutant has its own random number.
    """
    ranked = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if module.startswith(only):
            some = all_mutants(module)
            some.sort(key=lambda pair: random.Random(f"{seed} {pair[0].key}").random())
            ranked += [((i + 0.5) / len(some), module, pair) for i, pair in enumerate(some)]
    ranked.sort(key=lambda item: item[:2])
    print(f"{len(ranked)} mutants can be made; {min(number, len(ranked))} are chosen")
    return [pair for _, _, pair in ranked[:number]]


def still_there(recorded: list[Mutant], only: str) -> list[tuple[Mutant, bytes]]:
    """Return those of the recorded mutants that can be made of the present source.

    Where a module was moved or split, its functions are sought in the other modules, and a method
    of another class in the same folder, if only one has this change.
    """

    def names(mutant: Mutant) -> Iterator[tuple[Any, ...]]:
        module, function, *change = mutant.key
        yield module, function, *change
        if function:
            yield function, *change
            folder = module.partition("/")[0].removesuffix(".py")
            yield folder, function.rpartition(".")[2], *change

    present: dict[tuple[Any, ...], list[tuple[Mutant, bytes]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for mutant, source in all_mutants(path.relative_to(PACKAGE).as_posix()):
            for name in names(mutant):
                present.setdefault(name, []).append((mutant, source))
    found = []
    for old in recorded:
        same = next((s for name in names(old) if len(s := present.get(name, [])) == 1), None)
        if same:
            ((new, source),) = same
            place = {"line": new.line, "start": new.start, "moved_to": new.module}
            found.append((replace(old, outcome="", noticed_by="", **place), source))
        else:
            print(f"gone: {old.module}:{old.line} {old.function}: {old.before} -> {old.after}")
    return [pair for pair in found if pair[0].place.startswith(only)]


# ---------------------------------------------------------------- running the tests


def test_files(module: str) -> list[str]:
    """Return the test files of ``FOLDER/NAME.py`` as the tests mirror the package.

    They are ``tests/FOLDER/test_NAME.py`` and ``test_NAME_*.py``, or all of the folder if there is
    none of these; the folder of the core is ``tests/core``.
    """
    folder, _, name = module.removesuffix(".py").rpartition("/")
    files = sorted((ROOT / "tests" / (folder or "core")).glob("test_*.py"))
    own = [path for path in files if f"{path.stem}_".startswith(f"test_{name}_")]
    return [path.relative_to(ROOT).as_posix() for path in own or files]


class Plugin:
    """For pytest: few Hypothesis examples, without shrinking; the first failure is written down."""

    def __init__(
        self, wanted: list[str] | None = None, known: frozenset[str] = frozenset()
    ) -> None:
        self.wanted, self.known = wanted, known

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants", settings.get_profile("ci"), max_examples=20,
            phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False,
        )  # fmt: skip
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.wanted is not None:  # the fastest first; tests that are new are kept
            place = {name: i for i, name in enumerate(self.wanted)}
            items[:] = [i for i in items if i.nodeid in place or i.nodeid not in self.known]
            items.sort(key=lambda item: place.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            Path("noticed").write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


class Survey(Plugin):
    """Measure each test: its duration, and the library's functions that it calls.

    ``PROCESS`` stands for a test that starts another process, which may call any function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self.package = str(Path("minidl").resolve())
        sys.settrace(self.trace)
        threading.settrace(self.trace)

    def trace(self, frame: Any, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self.package):
            self.calls.add(f"{code.co_filename[len(self.package) + 1 :]}:{code.co_firstlineno}")
        elif (
            code.co_name in ("_execute_child", "spawnv_passfds")
            or "support/scripts" in code.co_filename
        ):
            self.calls.add(PROCESS)

    def pytest_collection_finish(self) -> None:
        self.on_import, self.calls = self.calls, set()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.tests[nodeid] = time.perf_counter() - self.since, sorted(self.calls)
        self.calls = set()

    def pytest_runtest_logstart(self) -> None:
        sys.settrace(self.trace)  # Hypothesis removes it
        for module in [m for name, m in sys.modules.items() if name.startswith("minidl")]:
            for value in [v for v in vars(module).values() if hasattr(v, "cache_clear")]:
                value.cache_clear()  # so that each test calls what it depends on
        self.since = time.perf_counter()

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        survey = {"on_import": sorted(self.on_import), "tests": self.tests}
        Path("survey").write_text(json.dumps(survey))


PROCESS = "a process"


def in_child(tree: Path, files: list[str], plugin: Plugin | None) -> int:
    """Run pytest on the copied tree; without a plugin, survey the files."""
    os.chdir(tree)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(PYTHONPATH=str(tree), TMPDIR=str(tree / "tmp"))
    tempfile.tempdir = None
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = plugin is not None
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", f"--rootdir={tree}"]
    options += ["-W", "ignore:Module already imported"]  # which assertions do not need
    return int(pytest.main([*options, *files], plugins=[plugin or Survey()]))


def run_tests(
    tree: Path, files: list[str], plugin: Plugin | None, cpu_seconds: int
) -> tuple[str, str]:
    """Run test files in a forked process; return the outcome and the first failed test."""
    noticed = tree / "noticed"
    noticed.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        try:
            code = in_child(tree, files, plugin)
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        os._exit(code)
    started = time.monotonic()
    ended, late = 0, False
    while not (ended or late):
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
        late = time.monotonic() - started > 20 * cpu_seconds
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the child itself, or what its tests left running
    if late:
        os.waitpid(child, 0)
    name = noticed.read_text() if noticed.exists() else ""
    if late or (os.WIFSIGNALED(status) and not name):
        return "timeout", name
    code = os.waitstatus_to_exitcode(status)
    return ("survived", "") if code in (0, 5) else ("killed", name or f"exit {code}")


def test_mutant(mutant: Mutant, source: bytes, tree: Path, survey: Survey_, args: Any) -> None:
    """Run the given tests, or those that call the mutant's function, or all of its files."""
    if args.tests:
        run_mutant(mutant, source, tree, args.tests, Plugin(), args.cpu)
        return
    files = list(survey) if args.wide else test_files(mutant.place)
    called = f"{mutant.place}:{mutant.start}"
    tests = {k: v for f in files for k, v in survey[f]["tests"].items()}
    on_import = any(called in survey[f]["on_import"] for f in files)
    if args.all or not mutant.start or (on_import and not args.wide):
        wanted = list(tests)
    else:
        wanted = [k for k, (_, calls) in tests.items() if called in calls or PROCESS in calls]
    if not args.all:
        wanted = [name for name in wanted if tests[name][0] < args.slowest]
    wanted.sort(key=lambda name: tests[name][0])
    if args.wide:  # the fastest, for a minute
        passed = itertools.accumulate(tests[name][0] for name in wanted)
        wanted = [name for name, seconds in zip(wanted, passed, strict=True) if seconds < 60]
    files = [f for f in files if any(name.startswith(f) for name in wanted)]
    if not files:
        mutant.outcome = "survived"
        return
    cpu = args.cpu + 3 * int(sum(tests[name][0] for name in wanted))
    run_mutant(mutant, source, tree, files, Plugin(wanted, frozenset(tests)), cpu)


def run_mutant(
    mutant: Mutant, source: bytes, tree: Path, tests: list[str], plugin: Plugin, cpu_seconds: int
) -> None:
    """Put a mutant into the tree, run tests, put the right source back."""
    file = tree / "minidl" / mutant.place
    right, since = file.read_bytes(), time.monotonic()
    file.write_bytes(source)
    mutant.outcome, mutant.noticed_by = run_tests(tree, tests, plugin, cpu_seconds)
    file.write_bytes(right)
    mutant.seconds = round(time.monotonic() - since, 1)


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need; they skip what needs the shared data sets."""
    tree = folder / "tree"
    tree.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "runs")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, tree / name)
    (tree / "tmp").mkdir()
    return tree


def preload() -> None:
    """Import what the tests import, except minidl, once for all forked processes."""
    os.environ.update(CI="1", PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="agg")
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def in_parallel(jobs: int, work: Callable[[int], None]) -> None:
    """Call ``work(k)`` for each k below ``jobs`` in a forked process of its own."""
    sys.stdout.flush()
    children = []
    for k in range(jobs):
        child = os.fork()
        if child == 0:
            try:
                work(k)
                code = 0
            except KeyboardInterrupt:
                code = 130
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(max(codes))


def make_survey(trees: list[Path], files: list[str], cache: Path, cpu_seconds: int) -> Survey_:
    """Run the test files without a mutant; files that did not change are not run again."""
    cache.mkdir(exist_ok=True)
    sources = [p for name in COPIED for p in sorted((ROOT / name).rglob("*.py"))]
    shared = b"".join(p.read_bytes() for p in sources if not p.name.startswith("test_"))

    def path(file: str) -> Path:
        state = hashlib.sha256(shared + (ROOT / file).read_bytes()).hexdigest()[:16]
        return cache / f"{state}-{file.replace('/', '-')}.json"

    missing = [file for file in files if not path(file).exists()]

    def survey_some(k: int) -> None:
        for file in missing[k :: len(trees)]:
            outcome, name = run_tests(trees[k], [file], None, 20 * cpu_seconds)
            if outcome != "survived":
                raise RuntimeError(
                    f"without a mutant: {name}\n{(trees[k] / 'log').read_text()[-2000:]}"
                )
            (trees[k] / "survey").replace(path(file))
            print(f"surveyed {file}", flush=True)

    in_parallel(len(trees), survey_some)
    return {file: json.loads(path(file).read_text()) for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the single changes that tests notice.")
    parser.add_argument("--number", type=int, default=400, help="mutants of the sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="", help="only modules whose path begins so")
    parser.add_argument("--out", type=Path, default=Path("runs/mutants"), help="folder")
    parser.add_argument("--again", nargs="*", default=[], help="outcomes that are run once more")
    parser.add_argument(
        "--tests", nargs="*", help="only these, as tests/core/test_init.py::test_normal"
    )
    parser.add_argument("--all", action="store_true", help="all tests of a module's files")
    parser.add_argument("--wide", action="store_true", help="the tests of all files that call it")
    parser.add_argument(
        "--slowest", type=float, default=40, help="seconds; slower tests are left out"
    )
    parser.add_argument("--show", action="store_true", help="list the mutants; run nothing")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--cpu", type=int, default=60, help="CPU seconds, and thrice the tests' own"
    )
    args = parser.parse_args()
    table = args.out / "mutants.csv"
    if args.again:
        recorded = [m for m in read(table).values() if m.outcome in args.again]
        chosen = still_there(recorded, args.module)
    else:
        chosen = sample(args.number, args.seed, args.module)
    if args.show:
        for mutant, _ in chosen:
            print(f"{mutant.place}:{mutant.line} {mutant.before}  ->  {mutant.after}")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    done = read(table)
    waiting = [(m, s) for m, s in chosen if args.again or m.key not in done]
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        preload()
        trees = []
        for k in range(args.jobs):
            (Path(folder) / str(k)).mkdir()
            trees.append(copy_tree(Path(folder) / str(k)))
        files = {file for m, _ in waiting for file in test_files(m.place)}
        if args.wide:
            found = (ROOT / "tests").rglob("test_*.py")
            files = {p.relative_to(ROOT).as_posix() for p in found if p.parent.name not in SCRIPTS}
        files = sorted(files)
        cache = args.out / "survey"
        survey = {} if args.tests else make_survey(trees, files, cache, args.cpu)
        started = time.monotonic()

        def test_some(k: int) -> None:
            own = waiting[k :: args.jobs]
            for i, (mutant, source) in enumerate(own, start=1):
                test_mutant(mutant, source, trees[k], survey, args)
                write(table, mutant)
                left = (time.monotonic() - started) / i * (len(own) - i) / 60
                print(
                    f"{i}/{len(own)}, {left:.0f} min left: {mutant.outcome:8} {mutant.place}:"
                    f"{mutant.line} {mutant.before!r:.50} -> {mutant.after!r:.50}", flush=True,
                )  # fmt: skip

        try:
            in_parallel(args.jobs, test_some)
        except KeyboardInterrupt:
            print(f"\ninterrupted: the finished mutants are kept in {table}")
    done = read(table)
    report([done[m.key] for m, _ in chosen if m.key in done])


def read(path: Path) -> dict[tuple[str, str, str, str, int], Mutant]:
    """Return the recorded mutants; a later line of the same mutant replaces an earlier one."""
    done = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                row.update({name: int(row[name]) for name in ("count", "line", "start")})
                mutant = Mutant(**row)
                done[mutant.key] = mutant
    return done


def write(path: Path, mutant: Mutant) -> None:
    """Add a line to the table."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        names = [field.name for field in fields(Mutant) if field.name != "moved_to"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(asdict(mutant))


def report(finished: list[Mutant]) -> None:
    """Print the counts by module, and the survivors."""
    counts: dict[str, Counter[str]] = {}
    for mutant in finished:
        counts.setdefault(mutant.module, Counter())[mutant.outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    print(f"\n{'module':28}{'killed':>8}{'timeout':>8}{'survived':>9}{'equivalent':>11}")
    for module, count in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        print(
            f"{module:28}{count['killed']:8}{count['timeout']:8}{count['survived']:9}"
            f"{count['equivalent']:11}"
        )
    for mutant in finished:
        if mutant.outcome == "survived":
            print(
                f"{mutant.module}:{mutant.line} {mutant.function}: {mutant.before} -> {mutant.after}"
            )


if __name__ == "__main__":
    main()
