"""The benchmarks: what they check, measure, keep and report. No test asserts a time."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytestmark = pytest.mark.slow(seconds=40)

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
WORKLOADS = ("imports", "evaluate", "maps", "online", "step", "estimators", "grid")
WITHOUT_ENTMAX = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "entmax":
            raise ImportError("no " + name)

sys.meta_path.insert(0, Blocker())
if __name__ == "__main__":
    sys.path.insert(0, {folder!r})
    import maps
    maps.cases = lambda full: [{{"what": "sparsemax", "n": 4, "K": 5, "scale": 2.0}}]
    sys.argv = ["maps.py", "--seconds", "0.01", "--out", {out!r}]
    import tables
    sys.exit(tables.main("maps"))
"""


@pytest.fixture
def load(monkeypatch):
    """Import modules of the folder, which its commands put on their path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with mock.patch.dict(os.environ):  # a command pins the threads of its process
        yield importlib.import_module


def run_step(load, monkeypatch, out, *flags):
    """Run a command in this process on two tiny cases; the workers are processes in any case."""
    step, tables = load("step"), load("tables")
    monkeypatch.setattr(step, "cases", lambda full: [step.point(width=w, batch=4) for w in (4, 8)])
    few = {name: step.CONTESTANTS[name] for name in ("minidl", "NumPy loop")}
    monkeypatch.setattr(step, "CONTESTANTS", few)
    options = ["--seconds", "0.01", "--out", str(out), *flags]
    monkeypatch.setattr(sys, "argv", ["step.py", *options])
    return tables.main("step")


def read(folder, name="step"):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_a_run_writes_its_results_and_the_same_command_goes_on(load, monkeypatch, tmp_path, capfd):
    assert run_step(load, monkeypatch, tmp_path) == 0
    assert "| width 8, batch 4, depth 1, optimizer Adam |" in capfd.readouterr().out
    content = read(tmp_path)
    assert {"processor", "cores", "BLAS", "NumPy", "minidl", "seconds"} <= set(content["known"])
    assert [row["case"]["width"] for row in content["rows"]] == [4, 8]
    for row in content["rows"]:
        assert (row["threads"], len(row["load"])) == (1, 2)
        assert list(row["contestants"]) == ["minidl", "NumPy loop"]
        for found in row["contestants"].values():
            assert found["rounds"] >= 3
            low, high = found["extremes"]
            assert low <= found["median"] <= high
            low, high = found["quartiles"]
            assert low <= found["ratio"] <= high
        assert row["contestants"]["minidl"]["ratio"] == 1
    assert str(ROOT) not in json.dumps(content)

    lost = content["rows"].pop()
    content["rows"][0]["load"] = ["kept"] * 2
    (tmp_path / "step.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run_step(load, monkeypatch, tmp_path, "--seconds", "0.02")
    assert stopped.value.code == 2
    assert "has results with seconds = 0.01, not 0.02: remove it, or" in capfd.readouterr().err
    content["rows"][0]["load"] = [0.25, 0.5]
    (tmp_path / "step.json").write_text(json.dumps(content), encoding="utf-8")
    assert run_step(load, monkeypatch, tmp_path) == 0
    rows = read(tmp_path)["rows"]
    assert [row["case"] for row in rows] == [content["rows"][0]["case"], lost["case"]]
    assert rows[0]["load"] == [0.25, 0.5]  # not measured anew


def test_one_report_of_all(load, monkeypatch, tmp_path, capsys):
    """Two workloads: a table of each, and the picture of the steps along the width alone."""
    step, evaluate, tables = load("step"), load("evaluate"), load("tables")
    others = [step.point(width=4, batch=4, classes=3)]
    monkeypatch.setattr(step, "cases", lambda full: [step.point(width=4), *others])
    cases = [{"width": 4, "x": "uint8", "rows": 50}]
    monkeypatch.setattr(evaluate, "cases", lambda full: cases)
    options = "--seconds", "0.01", "--out", str(tmp_path)
    for module in (step, evaluate):
        monkeypatch.setattr(module, "CONTESTANTS", {"minidl": module.CONTESTANTS["minidl"]})
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    assert tables.main("step", "evaluate") == 0
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| width 4, batch 64, depth 1, optimizer Adam | " in text
    assert "| width 4, x uint8, rows 50 | " in text
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    results = load("timing").Results(tmp_path / "step.json", {})
    results.rows = [row(step.point(width=64), 1, PyTorch=2.0), row(step.point(width=64, l2=1), 1)]
    (panel,) = tables.panels(results)
    assert panel.curves == {"PyTorch": ([64], [0.5]), "equal": ([64], [1.0])}


def row(case, threads, **medians):
    """Return a row where minidl took 1."""
    found = {"minidl": {"median": 1.0, "ratio": 1.0, "compilation": 0}}
    for name, m in medians.items():
        found[name] = {"median": m, "ratio": 1 / m, "quartiles": [1 / m] * 2, "compilation": 0}
    return {"case": case, "threads": threads, "contestants": found, "refused": {}, "load": [0, 0]}


def test_results_of_other_settings_are_refused(load, tmp_path):
    results, path = load("timing").Results, tmp_path / "step.json"
    results(path, {"seconds": 1, "commit": "a"}).add(row({}, 1))
    same = results(path, {"seconds": 1, "commit": "a"})
    same.read()
    assert same.rows == [row({}, 1)]
    for known in ({"seconds": 1, "commit": "b"}, {"seconds": 1}):
        with pytest.raises(ValueError, match=r"commit = 'a', not (None|'b'): remove it, or"):
            results(path, known).read()
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a file of results"):
        results(path, {}).read()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threads", "0"], "expected threads to be a whole number >= 1, got '0'"),
        (["--seconds", "0"], "expected seconds to be a finite number > 0, got '0'"),
    ],
)
def test_bad_arguments_are_one_line(flags, message, load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["maps.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        load("tables").main("maps")
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_contestant_that_is_not_installed_is_named(tmp_path):
    code = WITHOUT_ENTMAX.format(folder=str(BENCHMARKS), out=str(tmp_path))
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("entmax is left out: no entmax") == 1
    assert [list(row["contestants"]) for row in read(tmp_path, "maps")["rows"]] == [["minidl"]]


def test_a_contestant_that_computes_something_else_is_refused(load, monkeypatch, tmp_path, capsys):
    """The check comes before the clock, and a refusal is reported by name."""
    timing, step, problems = load("timing"), load("step"), load("problems")
    assert "error" not in timing.prepare("step", step.point(width=8, batch=4), "NumPy loop")
    sound = problems.gradients
    faults = {
        "SGD": lambda value, grads: (value, [1.5 * grads[0], *grads[1:]]),
        "Adam": lambda value, grads: (value, [*grads[:-1], 0 * grads[-1]]),
    }
    for optimizer, fault in faults.items():
        problem = step.problem(step.point(width=8, batch=4, optimizer=optimizer))
        _ = problem.expected  # the reference, by the sound loop
        monkeypatch.setattr(problems, "gradients", lambda *a, fault=fault: fault(*sound(*a)))
        wrong = problem.disagreement(step.CONTESTANTS["NumPy loop"](problem).result())
        assert re.fullmatch(r"loss [\d.]+ after 20 steps, expected [\d.]+", wrong)
        monkeypatch.setattr(problems, "gradients", sound)
    monkeypatch.setattr(problems.Step, "disagreement", lambda self, found: "loss 1, expected 2")
    made = timing.prepare("step", step.point(width=8, batch=4), "NumPy loop")
    assert made == {"error": "computes something else: loss 1, expected 2"}
    timing.forget()
    results = timing.Results(tmp_path / "step.json", timing.environment())
    results.rows = [{**row(step.point(), 1), "refused": {"NumPy loop": made["error"]}}]
    text = load("tables").machine(results)
    assert "NumPy loop: computes something else: loss 1, expected 2" in text


@pytest.mark.parametrize(
    ("workload", "case", "fault"),
    [
        ("online", {"model": "MLP", "rows": 64}, lambda runs: [[1.01 * w for w in runs[0]]]),
        ("online", {"model": "perceptron", "rows": 64}, lambda runs: [[1.1 * w for w in runs[0]]]),
        ("evaluate", {"width": 8, "x": "uint8", "rows": 50}, lambda loss: 1.001 * loss),
        ("maps", {"what": "relumax", "n": 4, "K": 5, "scale": 2.0}, lambda p: (1.01 * p[0], p[1])),
        (
            "maps",
            {"what": "sparsemax loss", "n": 4, "K": 5, "scale": 2.0},
            lambda pair: (pair[0], 1.01 * pair[1]),
        ),
        (
            "step",
            {"width": 8, "batch": 64, "optimizer": "Adam", "l2": 1e-4, "letters": 1300},
            lambda weights: [w + np.float32(0.01) for w in weights],
        ),
        (
            "estimators",
            {"data": "digits", "dtype": "float32", "width": 64, "batch": "auto", "what": "fit"},
            lambda accuracy: accuracy - 0.5,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_checks_of_the_workloads(load, workload, case, fault):
    """Each library that is installed agrees with the reference; with a fault it does not."""
    module = load(workload)
    problem, checked = module.problem(case), 0
    takes_part = getattr(module, "takes_part", lambda name, case, full: True)
    for name, make in module.CONTESTANTS.items():
        if not takes_part(name, case, False):
            continue
        try:
            task = make(problem)
        except ImportError:
            continue
        if task.result is None:
            continue
        found = task.result()
        assert problem.disagreement(found) is None, name
        assert problem.disagreement(fault(found)) is not None, name
        checked += 1
    assert checked >= 1


def test_every_workload_has_cases_and_takers(load):
    """minidl takes part everywhere, and is the first."""
    for workload in WORKLOADS:
        module = load(workload)
        takes_part = getattr(module, "takes_part", lambda name, case, full: True)
        assert next(iter(module.CONTESTANTS)) == "minidl"
        for full in (False, True):
            cases = module.cases(full)
            assert len(cases) == len({json.dumps(case) for case in cases}) > 0
            for case in cases:
                takers = [n for n in module.CONTESTANTS if takes_part(n, case, full)]
                assert takers[0] == "minidl", case
                assert len(takers) > 1, case


def test_a_grid_and_processes_measure_themselves(load, tmp_path):
    """What runs in commands: a tiny grid on both sides, and the megabytes of an import."""
    grid, imports = load("grid"), load("imports")
    problem = grid.problem({"widths": [4], "epochs": 1, "processes": 2})
    pytest.importorskip("torch")
    for name in ("minidl", "PyTorch"):
        task = grid.CONTESTANTS[name](problem)
        found = task.result()
        assert problem.disagreement(found) is None
        assert task.call() > 0
    assert problem.disagreement(found + 0.1) is not None
    figures = []
    for case in ({"import": "megabytes"}, {"peak": "megabytes", "rows": 50}):
        problem = imports.problem(case)
        figures.append(float(imports.CONTESTANTS["minidl"](problem).call()))
    problem["folder"].cleanup()
    assert 0 < figures[0] < figures[1] < 1000


def test_statistics(load):
    timing = load("timing")
    found = timing.describe([2.0, 4.0, 1.0], [1.0, 1.0, 1.0])
    assert (found["median"], found["extremes"], found["rounds"]) == (2.0, [1.0, 4.0], 3)
    assert (found["ratio"], found["quartiles"]) == (0.5, [0.375, 0.75])
    assert timing.describe([2.0], [1.0])["quartiles"] == [0.5, 0.5]
    assert timing.describe([2.0, 2.0], [1.0, 2.0])["quartiles"] == [0.625, 0.875]
    assert timing.describe([1 / 3], [1.0])["median"] == 0.3333
    turns = []
    calls = {name: lambda name=name: turns.append(name) or 1.0 for name in "AB"}
    timing.in_turn(calls, 0, timing.Rounds(least=3))
    assert "".join(turns) == "ABABAB"
