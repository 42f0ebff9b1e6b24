"""Grids, runs in processes and on a Dask cluster, what is kept."""

import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import q2_width
import work
from homework.networks import Settings, train_point

import minidl
from minidl import files
from minidl.grid.points import Grid, exit_status
from minidl.grid.runner import run


def lines(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_grid():
    grid = Grid(width=[16, 32], lr=[1e-3, 0.1], act=["relu"])
    points = list(grid)
    assert len(grid) == len(points) == 4
    assert points[1] == {"width": 16, "lr": 0.1, "act": "relu"}
    assert grid.identifier(points[1]) == "width-16,lr-0.1,act-relu"
    assert len({grid.identifier(p) for p in grid}) == 4
    for axes, message in (
        ({}, "at least one axis"),
        ({"a": []}, "axis a is empty"),
        ({"a": [1, 2, 1]}, "axis a names 1 twice"),
        ({"a": [1, 1.0]}, "axis a names 1.0 twice"),
        ({"a": [(1, 2), [1, 2]]}, r"axis a names \[1, 2\] twice"),
        (
            {"a": [object]},
            r"axis a: expected numbers, strings, None or lists of them \(.*got builtins.type",
        ),
        ({"a": "relu"}, "a list of values on axis a, got 'relu'"),
        ({"a": 3}, "a list of values on axis a, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            Grid(**axes)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_grid(tmp_path, jobs):
    grid = Grid(a=[1, 2, 3], b=[10, 20])
    results = run(
        grid, work.product, out=tmp_path, jobs=jobs, cost=lambda p: p["a"], progress=False
    )
    assert [r.point for r in results] == list(grid)
    assert [r.values["value"] for r in results] == [10, 20, 20, 40, 30, 60]
    assert sorted(line["id"] for line in lines(tmp_path)) == sorted(r.id for r in results)
    assert lines(tmp_path)[0]["point"]["a"] == 3 or jobs == 2  # long ones first


def test_figures_do_not_depend_on_jobs_and_blas_has_one_thread(tmp_path):
    grid = Grid(width=[8, 64], lr=[0.01, 0.1])
    serial = run(grid, work.train, out=tmp_path / "1", jobs=1, progress=False)
    parallel = run(grid, work.train, out=tmp_path / "2", jobs=2, progress=False)
    assert [r.values["losses"] for r in serial] == [r.values["losses"] for r in parallel]
    for r in serial + parallel:
        assert r.values["threads"]
        assert set(r.values["threads"]) == {1}


def test_what_is_done_is_skipped(tmp_path):
    grid = Grid(a=[1, 2, 3], b=[10])
    first = run(grid, work.product, out=tmp_path, progress=False)
    before = (tmp_path / "results.jsonl").read_bytes()
    assert run(grid, work.product, out=tmp_path, progress=False) == first
    assert (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_run_is_recorded_and_tried_again(tmp_path, jobs):
    grid = Grid(a=[1, 2, 3])
    train = functools.partial(work.sometimes, broken=tmp_path / "broken")
    options = {"out": tmp_path / "out", "jobs": jobs, "progress": False}
    (tmp_path / "broken").write_text("2")
    results = run(grid, train, **options)
    assert [r.error for r in results] == [None, "ArithmeticError: 2 is broken", None]
    assert exit_status(results) == 1
    (tmp_path / "broken").write_text("")
    results = run(grid, train, **options)
    assert [r.values["value"] for r in results] == [1, 2, 3]
    assert exit_status(results) == 0
    tmp_path /= "out"
    assert len(lines(tmp_path)) == 4  # only the broken one ran again


def test_a_line_cut_short_is_run_again(tmp_path):
    grid = Grid(a=[1, 2, 3], b=[10])
    first = run(grid, work.product, out=tmp_path, progress=False)
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    again = run(grid, work.product, out=tmp_path, progress=False)
    assert [r.values["value"] for r in again] == [r.values["value"] for r in first]
    assert len(lines(tmp_path)) == 3
    file.write_text("nonsense\n")


def test_another_grid_in_the_same_folder_is_refused(tmp_path):
    task = functools.partial(work.sometimes, broken=tmp_path / "none")
    run(Grid(a=[1], b=[2, 3]), task, out=tmp_path, settings={"seed": 1}, progress=False)
    before = (tmp_path / "results.jsonl").read_bytes()
    for grid, train, settings, message in (
        (Grid(a=[1], b=[2]), task, {"seed": 1}, r"b was \[2, 3\], now it is \[2\]"),
        (Grid(b=[2, 3], a=[1]), task, {"seed": 1}, r"the axes were a, b, now they are b, a"),
        (Grid(a=[1], b=[2, 3]), task, {"seed": 2}, r"seed was 1, now it is 2"),
        (Grid(a=[1], b=[2, 3]), task, {"seed": 1, "data": "x"}, r"data was None, now it is 'x'"),
        (Grid(a=[1], b=[2, 3]), work.product, {"seed": 1}, r"function was 'work.sometimes, source \w{8}', now it is 'work.product"),
        (Grid(a=[1], b=[2, 3]), functools.partial(task, more=1), {"seed": 1}, r"more was None, now it is 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run(grid, train, out=tmp_path, settings=settings, progress=False)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_a_grid_grows(tmp_path):
    run(Grid(a=[2], b=[10]), work.product, out=tmp_path, progress=False)
    results = run(Grid(a=[1, 2], b=[10, 20]), work.product, out=tmp_path, progress=False)
    assert [r.values["value"] for r in results] == [10, 20, 20, 40]
    assert len(lines(tmp_path)) == 4  # the first one was kept
    assert json.loads((tmp_path / "grid.json").read_text())["axes"] == {"a": [1, 2], "b": [10, 20]}


def test_a_folder_without_a_finished_run_takes_other_settings(tmp_path):
    """Whoever repairs a training function that always fails need not delete anything."""
    (tmp_path / "broken").write_text("1")
    train = functools.partial(work.sometimes, broken=tmp_path / "broken")
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match=r"run: all of 1 runs failed; the first one, a-1: Arithmetic"):  # fmt: skip
        results = run(Grid(a=[1]), train, out=out, progress=False)
    assert exit_status(results) == 2
    results = run(Grid(a=[3], b=[1]), work.product, out=out, progress=False)
    assert [r.values["value"] for r in results] == [3]


def test_a_dead_worker_loses_nothing(tmp_path):
    grid = Grid(a=[1, 2])
    with pytest.raises(
        OSError, match=r"a worker process died with exit code 1 .*; 0 of 2 runs are kept"
    ):
        run(grid, work.die, out=tmp_path, jobs=2, progress=False)
    assert len(run(grid, work.slow, out=tmp_path, jobs=2, progress=False)) == 2


def test_the_bar_counts_runs_and_estimates_the_time_left(tmp_path, capsys):
    run(Grid(a=[1, 2, 3, 4]), work.slow, out=tmp_path)
    shown = capsys.readouterr().err
    assert "4/4 runs 100%" in shown
    assert "left" in shown


@pytest.mark.filterwarnings("default")  # Dask's own
def test_on_a_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        grid = Grid(a=[1, 2, 3], b=[10, 20])
        results = run(grid, work.product, out=tmp_path, executor=executor, progress=False)
    assert [r.values["value"] for r in results] == [10, 20, 20, 40, 30, 60]
    assert len(lines(tmp_path)) == 6


@pytest.mark.filterwarnings("default")  # Dask's own
def test_an_example_s_networks_on_a_dask_cluster(tmp_path):
    """The training function of a script, and the settings with the data, reach the workers."""
    distributed = pytest.importorskip("distributed")
    rng = np.random.default_rng(0)
    parts = [(rng.normal(size=(n, 6)), np.arange(n) % 3) for n in (60, 30, 30)]
    shared = {"epochs": 2, "batch_size": 16, "optimizer": "adam", "activation": "relu"}
    settings = Settings(minidl.Dataset(*parts), **shared, seed=0, dtype="float32", backend="numpy")
    grid = Grid(width=[4, 8], learning_rate=[0.01], dropout=[0.3], l2=[0.0])
    figures = {}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        for name, executor in (("here", None), ("dask", client.get_executor())):
            out = tmp_path / name
            task = functools.partial(train_point, q2_width.train, settings, out / "models")
            results = run(grid, task, out=out, executor=executor, progress=False)
            assert [r.error for r in results] == [None, None]
            keys = ("best_valid", "last_train", "last_test")
            figures[name] = [[r.values[key] for key in keys] for r in results]
            assert len(list((out / "models").glob("*.npz"))) == 2
    assert figures["here"] == figures["dask"]


def test_the_bar_starts_with_what_is_done_and_counts_runs(tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.texts, self.moves = options, [options["desc"]], []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def set_description_str(self, text, refresh):
            self.texts.append(text)

        def update(self, cost):
            self.moves.append(cost)

    monkeypatch.setattr("tqdm.tqdm", Bar)
    options = {"out": tmp_path, "cost": lambda p: 10.0 * p["a"]}
    run(Grid(a=[1, 2], b=[1]), work.product, **options)
    run(Grid(a=[1, 2, 3], b=[1]), work.product, **options)
    first, again = bars
    assert (first.options["total"], first.options["initial"]) == (30, 0)
    assert (first.texts, first.moves) == (["0/2 runs", "1/2 runs", "2/2 runs"], [20, 10])
    assert (again.options["total"], again.options["initial"]) == (60, 30)
    assert (again.texts, again.moves) == (["2/3 runs", "3/3 runs"], [30])


def test_an_interrupt_cancels_what_an_executor_has_not_begun(tmp_path, monkeypatch):
    class Recording(ThreadPoolExecutor):
        def submit(self, fn, /, *args):
            futures.append(super().submit(fn, *args))
            return futures[-1]

    def interrupt(file, result):
        raise KeyboardInterrupt

    futures = []
    monkeypatch.setattr("minidl.grid.runner.append", interrupt)
    with Recording(1) as executor:
        with pytest.raises(KeyboardInterrupt, match="0 of 6 runs are kept"):
            run(Grid(a=[1, 2, 3, 4, 5, 6]), work.slow, out=tmp_path, executor=executor, progress=False)  # fmt: skip
        assert sum(future.cancelled() for future in futures) >= 3


CALLS: list = []  # of the module: what a closure holds is compared


def test_numbers_that_json_lacks(tmp_path):
    """NaN and infinity in results, axes and settings: any parser reads them, and grids resume."""
    calls = CALLS
    calls.clear()

    def train(a, level):
        CALLS.append(a)
        return {"loss": [a, -a], "score": np.float32("nan")}

    def go(**more):
        task = functools.partial(train, level=math.nan)
        return run(Grid(a=[1.0, math.inf]), task, out=tmp_path, settings={"x": math.nan}, progress=False, **more)  # fmt: skip

    first = go()
    assert repr(go()) == repr(first)
    assert len(calls) == 2
    assert first[1].values["loss"] == [math.inf, -math.inf]
    for file in ("results.jsonl", "grid.json"):
        text = (tmp_path / file).read_text()
        for line in [text] if file == "grid.json" else text.splitlines():
            json.loads(line, parse_constant=pytest.fail)
    # The files of before have the words themselves.
    lines = [json.dumps(files.from_json(t)) for t in (tmp_path / "results.jsonl").read_text().splitlines()]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    old = json.dumps(files.from_json((tmp_path / "grid.json").read_text()))
    assert "NaN" in "".join(lines)
    assert "Infinity" in old
    (tmp_path / "grid.json").write_text(old)
    assert repr(go()) == repr(first)
    assert len(calls) == 2
