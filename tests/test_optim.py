"""Optimizers compared with PyTorch's for all options; blocks, flushing, schedules."""

import itertools
import pickle

import numpy as np
import pytest
import torch

import minidl
from minidl import SGD, Adam, AdamW, Cosine, Linear, StepDecay, WarmUp, optim

SGD_OPTIONS = [
    {"momentum": m, "dampening": d, "nesterov": n, "weight_decay": w}
    for m, d, n, w in itertools.product([0, 0.9], [0, 0.3], [False, True], [0, 0.1])
    if not n or (m and not d)
]
ADAM_OPTIONS = [
    {"betas": b, "eps": e, "weight_decay": w}
    for b, e, w in itertools.product([(0.9, 0.999), (0.5, 0.9), (0.0, 0.0)], [1e-8, 1e-2], [0, 0.1])
]
CASES = [(SGD, torch.optim.SGD, o) for o in SGD_OPTIONS] + [
    (ours, theirs, o)
    for ours, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW))
    for o in ADAM_OPTIONS
]


def run_both(ours, theirs, options, lr=0.05, steps=20):
    """The same gradients through both; parameters after each step."""
    model = Linear(5, 4, rng=0, dtype="float64")
    twin = torch.nn.Parameter(torch.from_numpy(model.theta.copy()))
    optimizer, reference = ours(model, lr, **options), theirs([twin], lr, **options)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        model.grad[:] = rng.normal(size=model.grad.size) * 10 ** rng.uniform(-6, 1)
        twin.grad = torch.from_numpy(model.grad.copy())
        optimizer.step()
        reference.step()
        yield model.theta, twin.detach().numpy(), optimizer, reference.state[twin]


@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_equals_pytorch_for_20_steps(ours, theirs, options):
    for theta, twin, optimizer, state in run_both(ours, theirs, options):
        np.testing.assert_allclose(theta, twin, rtol=1e-12, atol=1e-12 * np.abs(twin).max())
        for name, own in optimizer.torch_moments().items():
            moment = state[name].numpy()
            np.testing.assert_allclose(own, moment, rtol=0, atol=1e-12 * np.abs(moment).max())


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "wrong"),
    [
        (AdamW, torch.optim.Adam, {"weight_decay": 0.1}, {}),
        (Adam, torch.optim.Adam, {"eps": 1e-2}, {"eps": 1e-3}),
        (SGD, torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.1}),
        (SGD, torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_the_comparison_detects_another_optimizer(ours, theirs, options, wrong):
    right = [twin for _, twin, *_ in run_both(Adam if ours is AdamW else ours, theirs, options)]
    if wrong:
        seen = [t.copy() for t, *_ in run_both(ours, theirs, wrong)]
    else:
        seen = [t.copy() for t, *_ in run_both(ours, theirs, options)]
    assert np.abs(seen[-1] - right[-1]).max() > 1e-6


@pytest.mark.parametrize("make", [SGD, lambda m: SGD(m, momentum=0.9, nesterov=True, weight_decay=0.1), lambda m: Adam(m, weight_decay=0.1), AdamW])  # fmt: skip
def test_blocks_make_no_difference(make, monkeypatch):
    results = []
    for block in (7, 33, 10_000):
        monkeypatch.setattr(optim, "BLOCK", block)
        model = Linear(9, 11, rng=0)
        optimizer = make(model)
        for i in range(60):
            model.grad[:] = np.random.default_rng(i).normal(size=model.grad.size)
            optimizer.step()
        results.append(model.theta.copy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def moments_of(optimizer):
    state = optimizer.state_dict()
    return [state[name] for name in optimizer.moments]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [Adam, lambda m: Adam(m, weight_decay=1e-4), lambda m: SGD(m, momentum=0.9)])  # fmt: skip
def test_nothing_becomes_denormal(make, dtype):
    model = Linear(30, 30, rng=0, dtype=dtype)
    optimizer = make(model)
    model.grad[:] = 1e-3
    optimizer.step()
    model.theta[:5] = np.finfo(dtype).tiny  # the smallest normal number
    dead = slice(10, 20)  # units whose gradient is zero from now on
    for _ in range(9000 if dtype == "float64" else 2000):
        model.grad[:] = 1e-3
        model.grad[dead] = 0
        optimizer.step()
    tiny = np.finfo(dtype).tiny
    moments = moments_of(optimizer)
    for vector in (model.theta, *moments):
        assert not ((vector != 0) & (np.abs(vector) < tiny)).any()
    first = moments[0]
    assert optimizer.weight_decay or (first[dead] == 0).all()
    assert (np.abs(first[20:]) > 1e-4).all()


def test_flushing_changes_tiny_numbers_only():
    model = Linear(4, 4, rng=0)
    optimizer = Adam(model)
    model.theta[:3] = [1e-14, -1e-14, 1e-16]
    m, v = moments_of(optimizer)
    m[:2], v[:2] = [1e-24, 1e-26], [1e-34, 1e-36]
    optimizer.load_state_dict({"steps": 0, "scaled_exp_avg": m, "scaled_exp_avg_sq": v})
    optimizer.flush()
    m, v = moments_of(optimizer)
    np.testing.assert_array_equal(model.theta[:3], np.float32([1e-14, -1e-14, 0]))
    np.testing.assert_array_equal(m[:2], np.float32([1e-24, 0]))
    np.testing.assert_array_equal(v[:2], np.float32([1e-34, 0]))


def test_schedules_equal_pytorch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    pairs = [
        (StepDecay(0.1, every=3, factor=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        (Cosine(0.1, steps=12, final=0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 0.01)),
        (WarmUp(0.1, steps=5), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / 5, total_iters=4)),
    ]  # fmt: skip
    for schedule, make in pairs:
        reference = torch.optim.SGD([parameter], 0.1)
        scheduler = make(reference)
        for t in range(12):
            assert schedule(t) == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)
            reference.step()
            scheduler.step()
    assert Cosine(0.1, steps=12, final=0.01)(500) == pytest.approx(0.01)
    assert WarmUp(Cosine(1.0, 10), 5)(1) == pytest.approx(0.4 * Cosine(1.0, 10)(1))


def test_a_schedule_sets_the_learning_rate_of_each_step():
    model = Linear(2, 2, rng=0, dtype="float64")
    optimizer = SGD(model, StepDecay(1.0, every=2, factor=0.1))
    moves = []
    for _ in range(5):
        model.grad[:] = 1
        before = model.theta[0]
        optimizer.step()
        moves.append(before - model.theta[0])
    np.testing.assert_allclose(moves, [1, 1, 0.1, 0.1, 0.01], rtol=1e-10)
    optimizer.lr = 0.5
    assert optimizer.lr_at(99) == 0.5


@pytest.mark.parametrize("make", [lambda m: Adam(m, 0.01), lambda m: SGD(m, 0.01, momentum=0.9)])
@pytest.mark.parametrize("way", ["state_dict", "pickle"])
def test_state_round_trip(make, way):
    def steps(model, optimizer, first, last):
        for i in range(first, last):
            model.grad[:] = np.random.default_rng(i).normal(size=model.grad.size)
            optimizer.step()

    uninterrupted = Linear(3, 3, rng=0, dtype="float64")
    steps(uninterrupted, make(uninterrupted), 0, 20)
    model = Linear(3, 3, rng=0, dtype="float64")
    optimizer = make(model)
    steps(model, optimizer, 0, 10)
    if way == "pickle":
        optimizer = pickle.loads(pickle.dumps(optimizer))
        model = optimizer.model
    else:
        state = optimizer.state_dict()
        optimizer = make(model)
        optimizer.load_state_dict(state)
    steps(model, optimizer, 10, 20)
    np.testing.assert_array_equal(model.theta, uninterrupted.theta)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Adam(m, -1), r"Adam: expected lr .* got -1"),
        (lambda m: Adam(m, float("nan")), r"lr .* got nan"),
        (lambda m: Adam(m, betas=(0.9, 1.0)), r"betas\[1\] .* got 1.0"),
        (lambda m: Adam(m, betas=(0.9,)), r"two betas"),
        (lambda m: AdamW(m, weight_decay=-1), r"AdamW: expected weight_decay"),
        (lambda m: SGD(m, nesterov=True), r"nesterov needs momentum > 0 and dampening = 0"),
        (lambda m: SGD(m, momentum="x"), r"momentum to be a finite number >= 0, got 'x'"),
        (lambda m: Cosine(0.1, 0), r"Cosine: expected steps"),
        (lambda m: Adam(m).load_state_dict({"step": 1}), r"no state 'step', did you mean 'steps'"),
        (lambda m: Adam(m).load_state_dict({"steps": 1}), r"the state has no 'scaled_exp_avg'"),
        (lambda m: SGD(m, momentum=0.9).load_state_dict({"steps": 1, "momentum_buffer": np.ones(3)}), r"expected momentum_buffer of shape \(6,\), got \(3,\)"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make(Linear(2, 2, rng=0))


def test_an_optimizer_of_a_layer_that_a_model_takes_over():
    layer = Linear(2, 2, rng=0)
    optimizer = SGD(layer, 1.0)
    model = minidl.Sequential(layer, rng=1)
    before = model.theta.copy()
    model.grad[:] = 1
    optimizer.step()
    np.testing.assert_allclose(model.theta, before - 1)
