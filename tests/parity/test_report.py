"""The lock-step comparison with PyTorch: agreement, the report, errors."""

import json
import math
import os
import re
import sys

import numpy as np
import pytest
import torch
from numeric import flat

import minidl
from minidl import (
    SGD,
    Adam,
    AdamW,
    CrossEntropy,
    Dropout,
    FenchelYoung,
    LayerNorm,
    Linear,
    Quadratic,
    Residual,
    Sequential,
    SquaredError,
    Tanh,
    sparsemax,
)
from minidl.files import from_json, to_json
from minidl.online.tails import KERNELS
from minidl.parity.__main__ import main
from minidl.parity.convert import from_torch, to_torch
from minidl.parity.formulas import criterion, formula
from minidl.parity.report import ParityReport, compare
from minidl.parity.standard import (
    DEPTHS,
    OPTIMIZERS,
    OnlineCase,
    ParityCase,
    RandomCase,
    standard_set,
)
from minidl.parity.torch_model import fit, one_thread, torch_counterparts
from minidl.testing.catalogue import LAYERS, LOSSES, MAPS


def network(dtype="float64", rng=0):
    layers = Linear(6, 8), LayerNorm(8), Residual(Linear(8, 8), Tanh()), Dropout(0.4), Quadratic(), Linear(8, 4, bias=False)  # fmt: skip
    return Sequential(*layers, rng=rng, dtype=dtype)


def batches(steps=5, n=7, features=6, classes=4, dtype=np.float64):
    rng = np.random.default_rng(3)
    return [
        (rng.normal(size=(n, features)).astype(dtype), rng.integers(classes, size=n))
        for _ in range(steps)
    ]


# Lock-step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [lambda m: SGD(m, 0.1, momentum=0.9), lambda m: Adam(m, 1e-3), lambda m: AdamW(m, 1e-3)])  # fmt: skip
def test_agrees_and_changes_neither_model_nor_optimizer(make, dtype):
    model = network("float64")
    optimizer = make(model)
    for x, y in batches(3):  # the optimizer has state already
        logits, backward = model.forward(x, train=True)
        backward(CrossEntropy()(logits, y)[1], input_grad=False)
        optimizer.step()
    theta, state = model.theta.copy(), optimizer.state_dict()
    stream = model[3].rng.bit_generator.state
    report = compare(model, CrossEntropy(), optimizer, batches(dtype=dtype), dtype=dtype)
    assert report, report.verdict()
    assert report.relative[0].max() < (1e-5 if dtype == "float32" else 1e-13)
    assert report.relative.max() > 0  # two libraries, not one twice
    assert model[3].rng.bit_generator.state == stream
    np.testing.assert_array_equal(model.theta, theta)
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_both_drop_the_same_entries():
    model = Sequential(Linear(6, 50), Dropout(0.5), Dropout(0.5), Linear(50, 4), rng=0)
    shared = np.random.default_rng(1)
    model[1].rng = model[2].rng = shared  # drawn in turns, by both
    module = to_torch(model, same_masks=True)
    x = batches(1)[0][0].astype(np.float32)
    for _ in range(3):
        ours = model.forward(x, train=True)[0]
        theirs = module.train()(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_targets_of_every_kind():
    model = Sequential(Linear(6, 1), rng=0, dtype="float64")
    data = [(x, y.astype(float)) for x, y in batches()]
    assert compare(model, SquaredError(), SGD(model, 0.1), data)
    model = Sequential(Linear(6, 4), rng=0, dtype="float64")
    rng = np.random.default_rng(0)
    shares = [(x, rng.dirichlet(np.ones(4), size=len(x))) for x, _ in batches()]
    for loss in (CrossEntropy(), FenchelYoung(sparsemax), FenchelYoung(minidl.entmax15, "sum"), minidl.SmoothedNLL(minidl.relumax(3.0))):  # fmt: skip
        report = compare(model, loss, SGD(model, 0.1), shares)
        assert report.relative.max() < 1e-12, loss


def test_a_custom_schedule():
    model = network()
    report = compare(model, CrossEntropy(), SGD(model, lambda t: 0.1 / (t + 1)), batches())
    assert report


def test_the_report():
    model = Sequential(Linear(6, 4), rng=0, dtype="float64")
    report = compare(model, CrossEntropy(), Adam(model), batches(), title="a title")
    names = [f"{kind} of 0.{p}" for kind in ("gradient", "exp_avg", "exp_avg_sq", "parameter") for p in ("bias", "weight")]  # fmt: skip
    assert report.quantities == ["logits", "loss", "dlogits", *names]
    assert report.absolute.shape == report.relative.shape == (5, len(report.quantities))
    assert report.first is None
    assert report.verdict() == "within the tolerance at all 5 steps"


def planted():
    """Return a report with differences in exp_avg of 0.bias from step 3 and in the loss from step 4."""
    quantities = ["logits", "loss", "exp_avg of 0.bias", "parameter of 0.bias"]
    relative = np.full((5, 4), 1e-15)
    relative[2:, 2], relative[3:, 1], relative[2:, 3] = 1e-3, np.inf, 5e-3
    return ParityReport(
        "planted", "float64", quantities, relative * 2, relative, lambda step: 1e-10
    )


def test_the_report_names_quantity_and_step():
    report = planted()
    assert not report
    assert report.first == (3, "exp_avg of 0.bias")
    verdict = (
        "exp_avg of 0.bias passes the tolerance at step 3: relative difference 1.0e-03 > 1.0e-10"
    )
    assert report.verdict() == verdict
    assert str(report) == f"ParityReport(planted, float64, {verdict})"
    content = from_json(to_json(report.to_dict()))
    assert content["worst"]["loss"] == {"relative": math.inf, "absolute": math.inf}
    assert content["worst"]["exp_avg of 0.bias"] == {"relative": 1e-3, "absolute": 2e-3}
    assert content["relative"]["exp_avg"] == [1e-15, 1e-15, 1e-3, 1e-3, 1e-3]


def test_nan_differences_are_failures():
    model = Sequential(Linear(6, 4), rng=0, dtype="float64")
    data = batches(2)
    data[1][0][0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        report = compare(model, CrossEntropy(), SGD(model, 0.1), data)
    assert report.first == (2, "logits")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: compare(m, CrossEntropy(), SGD(m), []), ValueError, "compare: expected at least one batch"),
        (lambda m: compare(m, CrossEntropy(), SGD(m), batches(), dtype=np.float16), ValueError, "expected dtype float32 or float64, got .*float16"),
        (lambda m: compare(m, CrossEntropy(), SGD(m), batches(), dtype=np.complex64), ValueError, "expected dtype float32 or float64, got .*complex64"),
        (lambda m: compare(m, CrossEntropy(), SGD(m), batches(features=5)), ValueError, r"Linear\(6, 8\): expected x of shape \(n, 6\), got \(7, 5\)"),
        (lambda m: compare(m, CrossEntropy(), SGD(Linear(2, 2, rng=0)), batches()), ValueError, "compare: the optimizer was made for another model"),
        (lambda m: torch_counterparts(m, CrossEntropy(), SGD(Linear(2, 2, rng=0))), ValueError, "torch_counterparts: the optimizer was made for another model"),
        (lambda m: compare(m, lambda z, y: (0.0, z), SGD(m), batches()), TypeError, "no PyTorch counterpart of the loss <function"),
        (lambda m: compare(m, CrossEntropy(), type("Own", (SGD,), {})(m), batches()), TypeError, "no PyTorch counterpart of the optimizer Own"),
    ],
)  # fmt: skip
def test_comparison_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(network())


# The standard set


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_counterpart(name):
    model = Sequential(LAYERS[name](5, 4), rng=0, dtype="float64")
    back = from_torch(to_torch(model))
    x = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_array_equal(back(x), model(x))
    theirs = to_torch(model).eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(theirs, model(x), rtol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_every_map_has_a_counterpart(name):
    map, z = MAPS[name], np.random.default_rng(0).normal(size=(3, 5))
    theirs = formula(map)
    np.testing.assert_allclose(theirs.project(map, torch.from_numpy(z), -1), map(z), rtol=1e-12)
    assert (theirs.omega is not None) == hasattr(map, "omega")
    if theirs.omega is not None:
        omega = theirs.omega(map, torch.from_numpy(map(z))).sum(dim=-1)
        np.testing.assert_allclose(omega, map.omega(map(z)), rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_counterpart(name):
    entry, rng = LOSSES[name], np.random.default_rng(0)
    z = rng.normal(size=(3, entry.outputs or 5))
    y = entry.targets(rng, z)
    theirs = criterion(entry.loss)(torch.from_numpy(z), torch.from_numpy(y))
    assert theirs.item() == pytest.approx(entry.loss(z, y)[0], rel=1e-12)


def test_cases_are_what_their_names_say():
    cases = {case.name: case for case in standard_set()}
    for name, case in cases.items():
        if name.startswith("depth "):
            depth = int(name.removeprefix("depth ").partition(",")[0])
            assert sum(isinstance(layer, Linear) for layer in case.layers()) == depth + 1, name
    assert cases["gains without weight decay"].optimizer[1]["decay_biases"] is False


def test_the_standard_set_has_everything():
    cases = standard_set()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert {type(case) for case in cases} == {ParityCase, OnlineCase, RandomCase}
    online = [case for case in cases if isinstance(case, OnlineCase)]
    assert {type(case.loss) for case in online} >= {*KERNELS, SquaredError}  # a kernel, and none
    assert any(case.l1 for case in online)
    assert any(case.optimizer[1].get("weight_decay") for case in online)
    assert set(names) >= {*LAYERS, *LOSSES}  # tests/testing/test_catalogue.py: all that there are
    maps = {
        type(layer.map)
        for case in cases
        for layer in minidl.parameter.walk(Sequential(*case.layers()))
        if isinstance(layer, minidl.Simplex)
    }
    assert maps == {type(map) for map in MAPS.values()}
    kinds = {case.optimizer[0] for case in cases}
    assert kinds >= {SGD, Adam, AdamW}
    settings = [options for _, options in OPTIMIZERS]
    for name in ("momentum", "dampening", "nesterov", "weight_decay", "betas", "eps", "clip_norm", "decay_biases"):  # fmt: skip
        assert any(name in options for options in settings)
    schedules = {type(options["lr"]) for options in settings}
    assert schedules >= {minidl.StepDecay, minidl.Cosine, minidl.OneCycle, minidl.WarmUp} - {
        minidl.Cosine
    }
    for depth in DEPTHS:
        assert sum(name.startswith(f"depth {depth}, ") for name in names) >= len(OPTIMIZERS)


def command(capsys, monkeypatch, *args):
    """Run ``python -m minidl.parity``; return its output and whether it exits with 1."""
    monkeypatch.setattr(sys, "argv", ["minidl.parity", *map(str, args)])
    failed = False
    try:
        main()
    except SystemExit as end:
        failed = end.code == 1
    return capsys.readouterr().out, failed


def chosen():
    """Return the standard set, of the deeper networks one setting of each optimizer."""
    cases = standard_set()
    deep = [case for case in cases if case.name.startswith(("depth 3,", "depth 9,"))]
    first = {(case.name[:8], case.optimizer[0]): case for case in deep}.values()
    cases = [case for case in cases if case not in deep or case in first]
    assert len(cases) > 70
    return cases


@pytest.mark.slow(seconds=60)
def test_200_steps_in_float64(capsys, monkeypatch, tmp_path):
    """Of some kinds of cases; MINIDL_WHOLE=1 takes all, two minutes. 20 steps of all are below."""
    cases = standard_set() if os.environ.get("MINIDL_WHOLE") else chosen()[11::15]  # depth 9 is one
    monkeypatch.setattr("minidl.parity.standard.standard_set", lambda: cases)
    file = tmp_path / "differences.json"
    out, failed = command(capsys, monkeypatch, "--json", file)
    assert not failed, out
    content = json.loads(file.read_text())
    assert content["passed"]
    assert {case["steps"] for case in content["cases"]} == {200}
    worst = {case["title"]: max(map(max, case["relative"].values())) for case in content["cases"]}
    assert len(worst) == len(cases)
    assert max(worst.values()) < 1e-10
    assert [title for title in worst if title not in out] == []


@pytest.mark.parametrize(
    ("steps", "dtype"),
    [
        (2, "float32"),
        (2, "float64"),
        pytest.param(20, "float64", marks=pytest.mark.slow(seconds=20)),
    ],
)
def test_no_case_fails(capsys, monkeypatch, tmp_path, steps, dtype):
    """Without --slow the deeper networks have one setting of each optimizer."""
    cases = chosen() if steps < 20 else standard_set()
    monkeypatch.setattr("minidl.parity.standard.standard_set", lambda: cases)
    file = tmp_path / "differences.json"
    args = "--dtype", dtype, "--steps", steps, "--json", file
    out, failed = command(capsys, monkeypatch, *args)
    assert not failed, out
    for case in json.loads(file.read_text())["cases"]:
        assert case["dtype"] == dtype
        kind = "gradient" if "gradient" in case["relative"] else "parameter"
        assert case["relative"][kind][0] < (1e-5 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_and_the_time_left(capsys, monkeypatch, terminal):
    """A bar; without a terminal it is written once a minute: here at the first and the last."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("minidl.parity.standard.standard_set", lambda: standard_set()[-1:])
    monkeypatch.setattr(sys, "argv", ["minidl.parity", "--steps", "3"])
    main()
    shown = capsys.readouterr().err
    first, *others, last = (line for line in shown.replace("\r", "\n").split("\n") if line.strip())
    assert (first[:16], " 0/1 [00:00<?" in first) == ("comparing:   0%|", True)
    assert re.fullmatch(r"TorchRandom: 100%.* 1/1 \[00:0\d<00:00, .*case(/s)?\] *", last)
    assert terminal or not others


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "0"], "expected steps to be a whole number >= 1, got '0'"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_an_argument_error_is_one_line(capsys, monkeypatch, args, message):
    monkeypatch.setattr(sys, "argv", ["minidl.parity", *args])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# Whole runs


def dataset(n=200, features=6, classes=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, features)).astype(np.float32)
    y = (x @ rng.normal(size=(features, classes))).argmax(axis=1)
    return minidl.Dataset((x[:150], y[:150]), (x[150:], y[150:]))


def test_fit_gives_the_same_history_as_ours():
    histories, models = [], [network("float32"), network("float32")]
    for run, model in zip((minidl.fit, fit), models, strict=True):
        optimizer = Adam(model, 1e-2, weight_decay=1e-4)
        histories.append(run(model, dataset(), CrossEntropy(), optimizer, epochs=4, batch_size=16, rng=1))  # fmt: skip
    np.testing.assert_allclose(models[0].theta, models[1].theta, atol=1e-4)
    assert (models[0].theta != models[1].theta).any()
    for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
        columns = [h.column(name) for h in histories]
        np.testing.assert_allclose(*columns, rtol=1e-4)
    best = Sequential(Linear(6, 4), rng=0)
    history = minidl.History()
    optimizer = SGD(best, 5.0)  # goes up and down
    fit(best, dataset(), CrossEntropy(), optimizer, epochs=9, rng=1, restore_best=True, history=history)  # fmt: skip
    assert history.best.epoch < 9
    np.testing.assert_array_equal(best.theta, flat(history.best_state))
    assert optimizer.steps == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", ["uint8", "int64", "float32", "float64", ">f4"])
def test_fit_takes_every_dtype(dtype, rows):
    """Of the model and of the data: the model's counts, as in our own fit."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 200, (60, 6)).astype(rows), rng.integers(4, size=60)
    data = minidl.Dataset((x[:40], y[:40]), (x[40:], y[40:]))
    models = [Sequential(minidl.BatchNorm(6), Linear(6, 8), Tanh(), Dropout(0.3), Linear(8, 4), rng=0, dtype=dtype) for _ in range(2)]  # fmt: skip
    histories = [
        run(m, data, CrossEntropy(), SGD(m, 0.1), epochs=3, batch_size=16, rng=1)
        for run, m in zip((minidl.fit, fit), models, strict=True)
    ]
    bound = {"float32": 1e-5, "float64": 1e-13}[dtype]
    assert models[1].dtype == models[1].theta.dtype == dtype
    np.testing.assert_allclose(models[1].theta, models[0].theta, atol=bound)
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(*[h.column(name) for h in histories], rtol=10 * bound)
    theirs = torch_counterparts(models[0], CrossEntropy(), SGD(models[0], 0.1))[0]
    assert theirs.dtype == minidl.outputs(theirs, data.valid.x).dtype == dtype
    np.testing.assert_allclose(
        minidl.outputs(theirs, x), minidl.outputs(models[0], x), atol=100 * bound
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_fit_takes_every_loss_and_weights(name, dtype):
    entry, rng = LOSSES[name], np.random.default_rng(0)
    x, z = rng.normal(size=(60, 6)), rng.normal(size=(60, entry.outputs or 4))
    y, w = entry.targets(rng, z), rng.uniform(0.5, 2, 60)
    for weight, batch_size in (((), 16), ((w,), 40)):
        data = minidl.Dataset(*[(x[s], y[s], *[v[s] for v in weight]) for s in (slice(40), slice(40, 60))])  # fmt: skip
        models = [Sequential(Linear(6, 8), Tanh(), Linear(8, z.shape[1]), rng=0, dtype=dtype) for _ in range(2)]  # fmt: skip
        histories = [
            run(
                m, data, entry.loss, SGD(m, 0.002), epochs=2, batch_size=batch_size, rng=1, parts=()
            )
            for run, m in zip((minidl.fit, fit), models, strict=True)
        ]
        bound = {"float32": 1e-6, "float64": 1e-14}[dtype]
        np.testing.assert_allclose(models[1].theta, models[0].theta, rtol=0, atol=10 * bound)
        np.testing.assert_allclose(*[h.column("train_loss")[1:] for h in histories], rtol=100 * bound)  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_train_loss_with_weights_and_a_smaller_last_batch(reduction):
    data = dataset()
    weight = np.random.default_rng(0).choice([0, 0.5, 1, 3], len(data.train))
    data = minidl.Dataset((data.train.x, data.train.y, weight))
    columns, loss = [], CrossEntropy(reduction)
    for run in (minidl.fit, fit):
        model = network("float64")
        optimizer = SGD(model, 1e-3)
        columns.append(run(model, data, loss, optimizer, epochs=2, batch_size=47, rng=1).column("train_loss"))  # fmt: skip
    np.testing.assert_allclose(*columns, rtol=1e-9)


def test_fit_leaves_the_weights_of_the_last_epoch_that_ended():
    """The loss of the last batch is finite, its gradient is not."""
    model = Sequential(Linear(6, 4), rng=0)

    class Poison(minidl.Callback):
        def on_batch(self, run):
            if len(run.history) == 2:
                run.model.module[0].weight.data.fill_(np.nan)

        def on_epoch(self, run):
            ends.append(run.model.theta.copy())

    ends = []
    with pytest.raises(minidl.NonFiniteLossError, match=r"epoch 2: .* but 0\.weight is not"):
        fit(model, dataset(), CrossEntropy(), SGD(model, 0.1), epochs=3, batch_size=150, rng=1, callbacks=[Poison()])  # fmt: skip
    np.testing.assert_array_equal(model.theta, ends[-1])


def test_the_counterpart_shares_the_memory_of_its_module():
    model = Sequential(Linear(6, 8), minidl.BatchNorm(8), Linear(8, 4), rng=0)
    model.forward(batches(1)[0][0].astype("f"), train=True)  # running statistics
    theirs = torch_counterparts(model, CrossEntropy(), SGD(model))[0]
    assert repr(theirs).startswith("TorchModel(Sequential(Linear(6, 8), ")
    np.testing.assert_equal(theirs.state_dict(), model.state_dict())
    x = batches(1)[0][0].astype("f")
    other = Sequential(Linear(6, 8), minidl.BatchNorm(8), Linear(8, 4), rng=1)
    for _ in range(2):  # a state is loaded, then training goes on from it
        theirs.load_state_dict(other.state_dict())
        np.testing.assert_allclose(theirs(x), other(x), rtol=1e-4, atol=1e-6)
        for m in (theirs, other):
            m.forward(x, train=True)
        for name, value in other.state_dict().items():
            np.testing.assert_allclose(theirs.state_dict()[name], value, rtol=1e-5)
    theirs.theta[:] = 0
    assert not any(p.any() for p in theirs.module.parameters())
    assert model.theta.any()


def test_threads_are_as_before():
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
