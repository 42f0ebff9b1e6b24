"""The performance harness: what it measures, checks, keeps and reports. No test asserts a time."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
BLOCKER = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "NAME":
            raise ImportError("no " + name)

sys.meta_path.insert(0, Blocker())
"""
START = """
if __name__ == "__main__":
    sys.argv = {flags}
    sys.path.insert(0, {path!r}.rpartition("/")[0])
    runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.fixture
def load(monkeypatch):
    """Import modules of the folder, which its commands put on their path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


TINY = ("--quick", "--seconds", "0.01", "--threads", "1")


def run_here(load, monkeypatch, out, *flags):
    """Run the command in this process on two tiny cases; the workers are processes in any case."""
    run, step = load("run"), load("workloads.step")
    monkeypatch.setattr(step, "cases", lambda *args: [step.point(width=w, batch=4) for w in (4, 8)])
    options = [*TINY, "--only", "step", "--contestants", "NumPy loop", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["run.py", *options, *flags])
    return run.main()


def read(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_run_writes_its_results_and_the_same_command_goes_on(load, monkeypatch, tmp_path, capfd):
    assert run_here(load, monkeypatch, tmp_path) == 0
    assert "0 targets met, 0 missed" in capfd.readouterr().out
    content = read(tmp_path)
    known = {"processor", "cores", "BLAS", "NumPy", "torch", "jax", "minidl", "commit"}
    assert known <= set(content["environment"])
    assert [row["case"]["width"] for row in content["rows"]] == [4, 8]
    for row in content["rows"]:
        assert (row["workload"], row["threads"]) == ("step", 1)
        assert len(row["load"]) == 2
        assert list(row["contestants"]) == ["minidl", "NumPy loop"]
        for found in row["contestants"].values():
            assert len(found["values"]) == found["rounds"] >= 3
            assert found["minimum"] <= found["median"]
            low, high = found["ratio quartiles"]
            assert low <= found["ratio"] <= high
        assert row["contestants"]["minidl"]["ratio"] == 1
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert content["environment"]["processor"] in text
    assert "A quick run" in text
    assert "| width 8, batch 4, depth 1, optimizer Adam |" in text
    assert str(ROOT) not in json.dumps(content) + text

    lost = content["rows"].pop()
    content["rows"][0]["seconds"] = "kept"
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    assert run_here(load, monkeypatch, tmp_path) == 0
    rows = read(tmp_path)["rows"]
    assert [row["case"] for row in rows] == [content["rows"][0]["case"], lost["case"]]
    assert rows[0]["seconds"] == "kept"
    assert run_here(load, monkeypatch, tmp_path, "--again") == 0
    assert read(tmp_path)["rows"][0]["seconds"] != "kept"


def test_the_picture(load, tmp_path):
    case = load("workloads.step").point(width=64)
    results = results_with(load, tmp_path, "step", case, 1, PyTorch=2.0)
    report = load("harness.report")
    (panel,) = report.panels(results)
    assert panel.curves["PyTorch"] == ([64], [0.5])
    assert report.draw(tmp_path / "step.png", results)
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_other_settings_are_refused(load, monkeypatch, tmp_path):
    results, path = load("harness.results").Results, tmp_path / "results.json"
    row = {"workload": "step", "case": {}, "threads": 1}
    results(path, {"seconds": 1}, {"numpy": "2.0", "commit": "a"}).add(row)
    kept = results.open(path, {"seconds": 1}, {"numpy": "2.0", "commit": "a"}, again=False)
    assert list(kept.rows.values()) == [row]
    with pytest.raises(ValueError, match="commit = 'a', not 'b'"):
        results.open(path, {"seconds": 1}, {"numpy": "2.0", "commit": "b"}, again=False)
    with pytest.raises(ValueError, match="seconds = 1, not 2: --again measures anew"):
        results.open(path, {"seconds": 2}, {"numpy": "2.0"}, again=False)
    with pytest.raises(ValueError, match=re.escape("numpy = '2.0', not '3.0'")):
        results.open(path, {"seconds": 1}, {"numpy": "3.0"}, again=False)
    assert results.open(path, {"seconds": 2}, {}, again=True).rows == {}
    kept = results.open(path, {"seconds": 1}, {"numpy": "2.0"}, again=True)
    kept.drop([row])
    assert kept.rows == {}
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a file of results"):
        results.open(path, {}, {}, again=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "stp"], "--only: no 'stp', did you mean 'step'?"),
        (["--contestants", "entmx"], "--contestants: no 'entmx', did you mean 'entmax'?"),
        (["--threads", "0"], "expected threads to be a whole number >= 1, got '0'"),
        (["--seconds", "0"], "expected seconds to be a finite number > 0, got '0'"),
        (["--data", "nowhere"], "--data: no such file or folder: nowhere"),
    ],
)
def test_bad_arguments_are_one_line(flags, message, load, monkeypatch, capsys):
    run = load("run")
    monkeypatch.setattr(sys, "argv", ["run.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_contestant_that_is_not_installed_is_named(tmp_path):
    """By the command itself."""
    path = BENCHMARKS / "run.py"
    flags = [*TINY, "--only", "simplex", "--contestants", "entmax", "--out", str(tmp_path)]
    code = BLOCKER.replace("NAME", "entmax") + START.format(
        path=str(path), flags=[str(path), *flags]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("entmax is left out: entmax is not installed") == 1
    rows = {row["case"]["what"]: row for row in read(tmp_path)["rows"]}
    assert rows["sparsemax"]["missing"] == {"entmax": "entmax"}
    assert list(rows["sparsemax"]["contestants"]) == ["minidl"]
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "Left out: entmax, since entmax is not installed." in text


def test_a_contestant_that_computes_something_else_is_refused(load, monkeypatch):
    """In this process, in place of a worker: the check comes before the clock."""
    workers, step = load("harness.workers"), load("workloads.step")
    loop = load("contestants.numpy_loop")
    case = step.point(width=8, batch=4)
    assert "error" not in workers.prepare("step", case, "NumPy loop", True)
    assert "error" not in workers.prepare("step", case, "minidl", True)
    sound = loop.gradients

    def planted(weights, x, y):
        value, grads = sound(weights, x, y)
        return value, [1.5 * grads[0], *grads[1:]]

    def without_bias(weights, x, y):
        value, grads = sound(weights, x, y)
        return value, [*grads[:-1], 0 * grads[-1]]

    problem = step.problem(case)
    for sgd, fault in ((True, planted), (False, without_bias)):
        one = step.point(width=8, batch=4, optimizer="SGD" if sgd else "Adam")
        problem = step.problem(one)
        _ = problem.losses  # the reference, by the sound loop
        monkeypatch.setattr(loop, "gradients", fault)
        task = step.CONTESTANTS["NumPy loop"].task(problem)
        wrong = step.disagreement(problem, task.check())
        assert re.fullmatch(r"loss [\d.]+ after 20 steps, expected [\d.]+", wrong)
        monkeypatch.setattr(loop, "gradients", sound)
    workers.forget()


def test_a_refusal_is_reported_by_name(load, monkeypatch, tmp_path, capsys):
    run, workers = load("run"), load("harness.workers")
    step = load("workloads.step")
    monkeypatch.setattr(step, "disagreement", lambda problem, found: "loss 1, expected 2")
    made = workers.prepare("step", step.point(width=8, batch=4), "NumPy loop", True)
    assert made == {"error": "computes something else: loss 1, expected 2"}
    row = {
        "workload": "step", "case": step.point(), "threads": 1, "load": [1, 1], "missing": {},
        "contestants": {}, "refused": {"NumPy loop": made["error"]},
    }  # fmt: skip
    environment = load("harness.environment").environment()
    results = load("harness.results").Results(tmp_path / "results.json", {}, environment)
    results.add(row)
    load("harness.report").write_report(tmp_path, results, [])
    assert run.summary(tmp_path, results) == 1
    assert "refused: NumPy loop" in capsys.readouterr().err
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "NumPy loop: computes something else: loss 1, expected 2" in text


@pytest.mark.parametrize(
    ("workload", "case", "fault"),
    [
        ("online", {"model": "MLP", "rows": 64}, lambda runs: [[1.01 * w for w in runs[0]]]),
        ("evaluate", {"width": 8, "x": "uint8", "rows": 50}, lambda loss: 1.001 * loss),
        (
            "simplex",
            {"what": "sparsemax loss", "n": 4, "K": 5, "scale": 2.0},
            lambda pair: (pair[0], 1.01 * pair[1]),
        ),
        (
            "real",
            {"width": 8, "l2": 1e-4, "data": "letters", "rows": 1300},
            lambda w: w[::-1][::-1],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_checks_of_the_other_workloads(load, workload, case, fault):
    """minidl agrees with the reference; with a fault in what it returns it does not."""
    module = load(f"workloads.{workload}")
    problem = module.problem(case)
    found = module.CONTESTANTS["minidl"].task(problem).check()
    assert module.disagreement(problem, found) is None
    if workload == "real":  # a fault in the L2 penalty
        found = [w + np.float32(0.01) for w in found]
    assert module.disagreement(problem, fault(found)) is not None


def test_every_library_computes_the_same(load):
    """The step of each contestant that is installed, on a tiny network."""
    step, task = load("workloads.step"), load("harness.task")
    problem = step.problem(step.point(width=8, batch=16))
    checked = []
    for name, entry in step.CONTESTANTS.items():
        # Compilers take seconds, JAX and torch.compile are checked by every run of the harness.
        if name in ("torch.compile", "JAX", "JAX vmap") or not task.is_installed(entry.needs):
            continue
        made = entry.task(problem)
        if made.check is not None:
            assert step.disagreement(problem, made.check()) is None, name
            checked.append(name)
    assert {"minidl", "NumPy loop"} <= set(checked)


def results_with(load, tmp_path, workload, case, threads, **medians):
    """Return results of one row, where minidl took 1."""
    found = {"minidl": {"median": 1.0, "ratio": 1.0}}
    found |= {name.replace("_", " "): {"median": m, "ratio": 1 / m} for name, m in medians.items()}
    row = {"workload": workload, "case": case, "threads": threads, "contestants": found}
    results = load("harness.results").Results(tmp_path / "results.json", {}, {})
    results.add({**row, "missing": {}, "refused": {}, "load": [0, 0]})
    return results


def test_targets_are_those_of_the_project(load):
    found = {(t.text, t.at_most) for t in load("harness.targets").targets()}
    for width, bound in {16: 0.35, 32: 0.45, 64: 0.55, 128: 0.80, 256: 0.85}.items():
        assert (f"step, 1 thread, best of PyTorch, width {width}", bound) in found
        assert (f"step, 2 threads, best of PyTorch, width {width}", 0.95) in found
    for width in (512, 1024, 2048):
        assert (f"step, 2 threads, best of PyTorch, width {width}", 1.05) in found
    for width, bound in {16: 1.05, 32: 1.05, 64: 1.05, 128: 1.3, 256: 1.3}.items():
        assert (f"step, 1 thread, JAX jit + scan, width {width}", bound) in found
    for width, bound in {16: 0.5, 32: 0.5, 64: 0.5, 256: 0.65}.items():
        assert (f"step, 1 thread, scikit-learn, width {width}", bound) in found
    others = {bound for text, bound in found if not text.startswith("step")}
    assert others == {0.06, 0.95, 1.1, 0.45, 0.6, 0.85, 1.5}


@pytest.mark.parametrize(
    ("theirs", "word"),
    [(2.0, "met"), (1.1, "missed by 0.059"), (None, "not measured")],
)
def test_a_missed_target_says_so(load, tmp_path, theirs, word):
    """Against the fastest of PyTorch's variants, and by how much it is missed."""
    case = load("workloads.step").point(width=256)
    medians = {} if theirs is None else {"PyTorch_fused": theirs, "PyTorch": 9.0}
    results = results_with(load, tmp_path, "step", case, 1, **medians)
    targets = load("harness.targets")
    name = "step, 1 thread, best of PyTorch, width 256"
    (verdict,) = [v for v in targets.verdicts(results) if v.target.text == name]
    assert verdict.word == word
    assert verdict.against == ("" if theirs is None else "PyTorch fused")
    assert all(
        v.met is None
        for v in targets.verdicts(results)
        if v is not verdict and "16" in v.target.text
    )
    text = load("harness.report").targets(results)
    (line,) = [line for line in text.splitlines() if name in line]
    assert ("**" in line) == (word.startswith("missed"))


def test_a_share_is_theirs_over_ours(load, tmp_path):
    case = {"width": 256, "x": "uint8"}
    results = results_with(load, tmp_path, "evaluate", case, 1, matrix_products=0.8)
    (verdict,) = [v for v in load("harness.targets").verdicts(results) if v.met is not None]
    assert verdict.ratio == pytest.approx(0.8)
    assert verdict.word == "missed by 0.050"


def test_when_compilation_has_paid(load):
    steps = load("harness.report").steps_to_pay
    assert steps(2.0, 0.75, 0.25) == "4"
    assert steps(2.0, 0.25, 0.25) == "never"


def test_statistics(load):
    timing = load("harness.timing")
    found = timing.describe([2.0, 4.0, 1.0], [1.0, 1.0, 1.0])
    assert (found["median"], found["minimum"], found["spread"]) == (2.0, 1.0, 0.75)
    assert found["ratio"] == 0.5
    assert found["ratio quartiles"] == [0.375, 0.75]
    turns = []
    calls = {name: lambda name=name: turns.append(name) or 1.0 for name in "AB"}
    timing.in_turn(calls, timing.Budget(0, least=3))
    assert "".join(turns) == "ABABAB"


def test_growth(load, monkeypatch, tmp_path):
    growth = load("growth")
    monkeypatch.setattr(growth, "QUICK", {"width": (4, 8), "classes": (2,)})
    flags = ("--quick", "--seconds", "0.01", "--rounds", "1", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["growth.py", *flags])
    growth.main()
    rows = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["axis"], row["case"]["width"]) for row in rows] == [
        ("width", 4), ("width", 8), ("classes", 256),
    ]  # fmt: skip
    assert all(row["products"] > 0 and row["share"] > 0 for row in rows)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_estimators_write_each_case_and_go_on(tmp_path):
    script = str(BENCHMARKS / "estimators.py")
    flags = [
        "--data",
        "digits",
        "--batch",
        "200",
        "--dtype",
        "float32",
        "--epochs",
        "1",
        "--rounds",
        "1",
        "--out",
    ]
    first = None
    for widths in ("8", "8 4"):
        command = [sys.executable, script, *flags, str(tmp_path), "--widths", *widths.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = json.loads((tmp_path / "estimators-fit-1.json").read_text(encoding="utf-8"))["rows"]
        assert [str(row["case"]["width"]) for row in rows] == widths.split()
        assert all(row["fit"][n] > 0 and row["predict"][n] > 0 for row in rows for n in ("minidl", "scikit-learn"))  # fmt: skip
        first = first or rows[0]
        assert rows[0] == first  # not measured anew
    done = subprocess.run([*command, "--rounds", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has results with rounds = 1, not 2" in done.stderr
