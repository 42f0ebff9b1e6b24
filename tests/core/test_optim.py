"""Optimizers compared with PyTorch's for all options; blocks, flushing, schedules."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import minidl
from minidl import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Cosine,
    LayerNorm,
    Linear,
    OneCycle,
    ReLU,
    Sequential,
    StepDecay,
    WarmUp,
    optim,
)

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


@pytest.mark.parametrize("block", [5, 10_000])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"), [c for c in CASES if c[2]["weight_decay"] and c[2].get("eps") != 1e-2]
)  # fmt: skip
def test_without_decay_of_biases_equals_two_groups_of_pytorch(
    ours, theirs, options, block, monkeypatch
):
    """Biases, gains and offsets, next to each other or not, at any place of a block."""
    monkeypatch.setattr(optim, "BLOCK", block)
    layers = Linear(3, 4), LayerNorm(4), ReLU(), Linear(4, 3, bias=False), BatchNorm(3)
    model = Sequential(*layers, Linear(3, 2), rng=0, dtype="float64")
    optimizer = ours(model, 0.05, decay_biases=False, **options)
    twins = [torch.nn.Parameter(torch.tensor(p.value)) for _, p in model.named_parameters()]
    few = {"params": [t for t in twins if t.ndim < 2], "weight_decay": 0}
    reference = theirs([{"params": [t for t in twins if t.ndim == 2]}, few], 0.05, **options)
    rng = np.random.default_rng(1)
    for step in range(12):
        if step == 6:  # pickled, and copied to a copy of the model
            model = model.copy()
            optimizer = pickle.loads(pickle.dumps(optimizer)).copy(model)
        model.grad[:] = rng.normal(size=model.grad.size)
        for twin, (_, p) in zip(twins, model.named_parameters(), strict=True):
            twin.grad = torch.tensor(p.grad)
        optimizer.step()
        reference.step()
        for twin, (_, p) in zip(twins, model.named_parameters(), strict=True):
            np.testing.assert_allclose(p.value, twin.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_decay_biases_is_a_setting(kind):
    model = Linear(3, 2, rng=0)
    default, spared = (kind(model, weight_decay=0.5, **o) for o in ({}, {"decay_biases": False}))
    assert default.decay_biases
    assert "decay_biases" not in repr(default)
    assert "weight_decay=0.5, decay_biases=False" in repr(spared)
    assert default.config() != spared.config()
    assert spared.config()["decay_biases"] is False


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


@pytest.mark.parametrize("make", [Adam, AdamW])
@pytest.mark.parametrize("eps", [0.0, 1e-40, 1e-12, 1e-10, 1e-9, 1e-8, 1e-6, 1.0])
@pytest.mark.parametrize(
    ("dtype", "first", "second"), [("float32", 1e-25, 1e-35), ("float64", 1e-200, 1e-290)]
)
def test_the_flush_thresholds_of_moments_follow_a_small_eps(make, eps, dtype, first, second):
    """By ``eps / 1e-8`` for the first, its square for the second; nothing changes with eps=0."""
    model = Linear(2, 2, rng=0, dtype=dtype)
    optimizer, ratio = make(model, eps=eps), min(1, eps / 1e-8)
    smallest = np.finfo(dtype).smallest_subnormal
    m = np.array([1e-3, -1e-3, 0.99, -0.99, 1.01, -1.01]) * first * (ratio or 1)
    v = np.array([1e-3, 0.98, 0.99, 1.01, 1.02, 1e3]) * second * (ratio**2 or 1)
    m, v = np.where(np.abs(m) < smallest, smallest, m), np.maximum(v, smallest)
    optimizer.load_state_dict({"steps": 9, "scaled_exp_avg": m, "scaled_exp_avg_sq": v})
    before = moments_of(optimizer)
    optimizer.flush()
    for old, new, limit in zip(before, moments_of(optimizer), (first * ratio, second * ratio**2), strict=True):  # fmt: skip
        np.testing.assert_array_equal(
            new, np.where(np.abs(old) < np.dtype(dtype).type(limit), 0, old)
        )
        assert eps or new.all()


@pytest.mark.parametrize("make", [Adam, AdamW, SGD, lambda m: SGD(m, momentum=0.9)])
def test_a_flush_comes_with_every_fiftieth_step(make):
    model = Linear(4, 4, rng=0)
    optimizer = make(model)
    model.grad[:] = 0
    left = []
    for step in range(1, 151):
        if step in (1, 60):
            model.theta[:] = 1e-20
        optimizer.step()
        left.append(bool(model.theta.any()))
    assert left == [True] * 49 + [False] * 10 + [True] * 40 + [False] * 51


def adam(gradients, lr, betas, eps):
    """The parameters from 0 after each step, in extended precision; nothing is flushed."""
    w, m, v = (np.zeros(gradients.shape[1], np.longdouble) for _ in range(3))
    b1, b2 = map(np.longdouble, betas)
    for t, g in enumerate(gradients.astype(np.longdouble), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield w


def largest_error(optimizer, gradients, **settings):
    """The largest difference from the reference, in multiples of the largest step, ``lr``."""
    lr, errors = optimizer.lr, []
    for g, expected in zip(gradients, adam(gradients, lr, **settings), strict=True):
        optimizer.model.grad[:] = g
        optimizer.step()
        errors.append(np.abs(optimizer.model.theta - expected).max() / lr)
    assert np.isfinite(errors).all()
    return float(max(errors))


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    exponent=st.floats(0, 1),
    eps=st.sampled_from([0.0, 1e-30, 1e-20, 1e-16, 1e-14, 1e-12, 1e-10, 1e-8, 1e-3]),
    beta2=st.sampled_from([0.9, 0.99, 0.999, 0.99999]),
    signs=st.sampled_from(["equal", "random", "alternating"]),
    until=st.sampled_from([160, 90, 20]),
    seed=st.integers(0, 99),
)
@example(dtype="float32", exponent=0.0, eps=0.0, beta2=0.999, signs="equal", until=160, seed=0)
@example(dtype="float32", exponent=0.0, eps=0.0, beta2=0.999, signs="equal", until=20, seed=0)
@example(dtype="float64", exponent=0.0, eps=1e-160, beta2=0.999, signs="random", until=160, seed=0)
def test_adam_is_adam_for_gradients_of_any_size(dtype, exponent, eps, beta2, signs, until, seed):
    """The flush leaves what the update uses, for every eps; after step ``until`` gradients are 0.

    Gradients are as small and as large as their squares allow in the dtype.
    """
    low, high = (-18.5, 17) if dtype == "float32" else (-150, 150)
    rng = np.random.default_rng(seed)
    size = 10.0 ** (low + exponent * (high - low))
    gradients = size * rng.uniform(0.8, 1, (160, 6))
    if signs != "equal":
        gradients *= rng.choice([-1, 1], gradients.shape) if signs == "random" else 1
        gradients[::2] *= -1 if signs == "alternating" else 1
    gradients[until:] = 0
    gradients = gradients.astype(dtype)
    model = Linear(2, 2, rng=0, dtype=dtype)
    model.theta[:] = 0
    optimizer = Adam(model, 0.01, betas=(0.9, beta2), eps=eps)
    assert largest_error(optimizer, gradients, betas=(0.9, beta2), eps=eps) < 2e-4


@given(
    eps=st.floats(-12, -2).map(lambda e: 10**e),
    beta2=st.sampled_from([0.9, 0.999, 0.99999]),
    low=st.integers(-30, -1),
    decay=st.sampled_from([0.0, 1e-4]),
    seed=st.integers(0, 99),
)
def test_flushing_is_exact_up_to_rounding_for_parameters_that_are_not_tiny(eps, beta2, low, decay, seed):  # fmt: skip
    thetas = []
    for flush in (True, False):
        rng = np.random.default_rng(seed)
        model = Linear(5, 3, rng=seed)
        model.theta[:] = rng.choice([-1, 1], model.theta.size) * rng.uniform(1e-3, 1, model.theta.size)  # fmt: skip
        optimizer = Adam(model, 1e-3, betas=(0.9, beta2), eps=eps, weight_decay=decay)
        if not flush:
            optimizer.flush = lambda: None
        sizes = 10.0 ** rng.uniform(low, 0, model.grad.size)  # of the gradient of each parameter
        for step in range(160):
            model.grad[:] = sizes * rng.normal(size=sizes.size) * (step < 100)
            optimizer.step()
        thetas.append(model.theta.copy())
    np.testing.assert_array_almost_equal_nulp(*thetas, nulp=4)


def test_flush_thresholds_are_reached_in_this_test():
    """Gradients of this size are flushed with the usual eps, so the test above can fail."""
    model = Linear(2, 2, rng=0)
    optimizer = Adam(model)
    model.grad[:] = 1e-27
    for _ in range(50):
        optimizer.step()
    assert not any(moment.any() for moment in moments_of(optimizer))


@pytest.mark.parametrize("make", [Adam, AdamW, lambda m, **o: Adam(m, weight_decay=0.1, **o)])
@pytest.mark.parametrize(("dtype", "largest"), [("float32", 3.4e38), ("float64", 1.79e308)])
@pytest.mark.parametrize("beta2", [0.9, 0.999, 0.99999])
def test_a_second_moment_beyond_the_range_raises(make, dtype, largest, beta2):
    """Either all parameters follow the reference, or the step says so; no parameter is stuck."""
    bound = np.sqrt(largest * (1 - beta2))
    for size, steps in ((0.99 * bound, 3000), (1.01 * np.sqrt(largest), 1), (2 * bound, None)):
        model = Linear(3, 2, rng=0, dtype=dtype)
        optimizer = make(model, lr=1e-3, betas=(0.9, beta2))
        before, raised = model.theta[1], None
        for _ in range(min(steps or int(1 / (1 - beta2)), 3000)):
            model.grad[:] = 0
            model.grad[1] = size
            try:
                optimizer.step()
            except FloatingPointError as error:
                raised = str(error)
                break
        if size < bound:
            assert raised is None
            assert abs(model.theta[1] - before) > 0.1
        elif steps == 1 or beta2 < 0.9999:
            assert f"the second moment overflows {dtype} at step {optimizer.steps}; the largest gradient is" in raised  # fmt: skip


@pytest.mark.parametrize("lr", [1e38, 1e30])
def test_a_parameter_that_overflows_is_left_to_the_loss(lr):
    model = Linear(2, 2, rng=0)
    optimizer = Adam(model, lr)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(9):
            model.grad[:] = 1
            optimizer.step()


def test_schedules_equal_pytorch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    pairs = [
        (StepDecay(0.1, every=3, factor=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        (Cosine(0.1, steps=12, final=0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 0.01)),
        (WarmUp(0.1, steps=5), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / 5, total_iters=4)),
    ]  # fmt: skip
    for options in (
        {},
        {"pct_start": 0.5},
        {"pct_start": 0.0},
        {"pct_start": 1.0},
        {"pct_start": 0.25, "div_factor": 3.0, "final_div_factor": 0.5},
    ):
        pairs.append(
            (
                OneCycle(0.1, 12, **options),
                lambda o, options=options: torch.optim.lr_scheduler.OneCycleLR(
                    o, 0.1, 12, cycle_momentum=False, **options
                ),
            )
        )
    for schedule, make in pairs:
        reference = torch.optim.SGD([parameter], 0.1)
        scheduler = make(reference)
        for t in range(12):
            assert schedule(t) == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)
            reference.step()
            if t < 11:
                scheduler.step()
    assert Cosine(0.1, steps=12, final=0.01)(500) == pytest.approx(0.01)
    assert OneCycle(0.1, steps=12)(500) == pytest.approx(0.1 / 25 / 1e4)
    assert [OneCycle(0.1, steps=4, pct_start=0.25)(t) for t in (0, 4)] == pytest.approx([0.1, 4e-7])
    assert "lr=0.1, steps=4, pct_start=0.3, div_factor=2.0" in repr(OneCycle(0.1, 4, 0.3, 2.0))
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


class Wrong:
    def __init__(self, value):
        self.value = value

    def __call__(self, t):
        return self.value if t == 3 else 0.1

    def __repr__(self):
        return "Wrong()"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, -float("inf"), None, "x"])
@pytest.mark.parametrize("make", [lambda m: Adam(m, Wrong(None)), lambda m: SGD(m, Wrong(None), momentum=0.9, clip_norm=1e-3)])  # fmt: skip
def test_a_bad_rate_stops_at_its_step_and_changes_nothing(make, value):
    model = Linear(2, 2, rng=0)
    optimizer = make(model)
    optimizer.lr.value = value
    model.grad[:] = 1
    for _ in range(3):
        optimizer.step()
    model.grad[:] = 1
    before = [a.copy() for a in (model.theta, model.grad, *moments_of(optimizer))]
    with pytest.raises(
        ValueError, match=rf"lr of step 3 to be a finite number >= 0, got {value!r}$"
    ):
        optimizer.step()
    for a, b in zip(before, (model.theta, model.grad, *moments_of(optimizer)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert optimizer.steps == 3
    optimizer.lr = -1
    with pytest.raises(ValueError, match=r"lr of step 3 to be a finite number >= 0, got -1$"):
        optimizer.step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 20.0])
@pytest.mark.parametrize("sizes", [(9, 11), (300, 200)])
def test_clip_norm_equals_pytorch(sizes, clip_norm, dtype):
    model = Linear(*sizes, rng=0, dtype=dtype)
    optimizer = SGD(model, 1.0, clip_norm=clip_norm)
    rng = np.random.default_rng(0)
    clipped = []
    for scale in (1e-5, 0.1, 1.0, 1e3):
        model.grad[:] = scale * rng.normal(size=model.grad.size)
        given, before = model.grad.copy(), model.theta.copy()
        parameters = [
            torch.nn.Parameter(torch.from_numpy(p.value)) for _, p in model.named_parameters()
        ]
        for p, (_, q) in zip(parameters, model.named_parameters(), strict=True):
            p.grad = torch.from_numpy(q.grad.copy())
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        theirs = np.concatenate([p.grad.numpy().ravel() for p in parameters])
        tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
        np.testing.assert_allclose(model.grad, theirs, rtol=tolerance)
        np.testing.assert_allclose(model.theta, before - model.grad, rtol=1e-6, atol=1e-6)
        clipped.append(not np.array_equal(model.grad, given))
        assert clipped[-1] == (np.linalg.norm(given) > clip_norm)
    assert clipped[-1]
    assert not clipped[0] or clip_norm < 0.01


@pytest.mark.parametrize(("dtype", "large"), [("float32", 1e30), ("float64", 1e300)])  # fmt: skip
def test_clip_norm_of_gradients_whose_squares_overflow(dtype, large):
    model = Linear(3, 3, rng=0, dtype=dtype)
    optimizer = SGD(model, 0.0, clip_norm=2.0)
    model.grad[:] = large
    optimizer.step()
    np.testing.assert_allclose(model.grad, 2 / np.sqrt(12), rtol=1e-6)
    model.grad[:] = 0
    optimizer.step()
    assert not model.grad.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_clip_norm_refuses_a_gradient_that_is_not_finite(value):
    model = Linear(3, 3, rng=0)
    optimizer = Adam(model, clip_norm=1.0)
    before = model.theta.copy()
    model.grad[:] = 1
    model.grad[4] = value
    with pytest.raises(
        FloatingPointError, match=r"clip_norm=1\): the gradient of step 0 has a norm"
    ):
        optimizer.step()
    np.testing.assert_array_equal(model.theta, before)
    assert optimizer.steps == 0
    assert not any(m.any() for m in moments_of(optimizer))


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


@pytest.mark.parametrize("make", [Adam, AdamW, SGD, lambda m: SGD(m, momentum=0.9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("other_dtype", ["float32", "float64"])
def test_a_copy_and_its_original_are_independent(make, dtype, other_dtype):
    def steps(model, optimizer, seed):
        for i in range(3):
            model.grad[:] = np.random.default_rng(seed + i).normal(size=model.grad.size)
            optimizer.step()

    model = Linear(3, 3, rng=0, dtype=dtype)
    optimizer = make(model)
    steps(model, optimizer, 0)
    other = model.copy(other_dtype)
    twin = optimizer.copy(other)
    before = model.theta.copy(), optimizer.state_dict()
    assert twin.steps == 3
    for moment, own in zip(moments_of(twin), moments_of(optimizer), strict=True):
        assert moment.dtype == other_dtype
        np.testing.assert_array_equal(moment, own.astype(other_dtype))
    steps(other, twin, 10)
    assert (other.theta != model.theta).all()
    np.testing.assert_array_equal(model.theta, before[0])
    np.testing.assert_equal(optimizer.state_dict(), before[1])
    after = other.theta.copy(), twin.state_dict()
    steps(model, optimizer, 10)
    np.testing.assert_array_equal(other.theta, after[0])
    np.testing.assert_equal(twin.state_dict(), after[1])
    if dtype == other_dtype:
        np.testing.assert_array_equal(other.theta, model.theta)
    if moments_of(optimizer):
        with pytest.raises(ValueError, match="the model has other parameters than at the start"):
            optimizer.copy(Linear(2, 2, rng=0)).step()


WRONG_VALUES = [
    np.ones(3), np.ones((6, 1)), 1.0, np.ones(6, complex), np.array(["a"] * 6), [None] * 6,
    np.array([1, 2, 3, 4, 5, "x"], object),
]  # fmt: skip
WRONG_STEPS = [-1, 1.5, True, None, "3", np.ones(2)]


@pytest.mark.parametrize("make", [Adam, AdamW, lambda m: SGD(m, momentum=0.9)])
def test_a_state_that_is_refused_changes_nothing(make):
    model = Linear(2, 2, rng=0)
    optimizer, source = make(model), make(model.copy())
    for one in (optimizer, source):
        for i in range(3):
            one.model.grad[:] = i + 1 + (one is source)
            one.step()
    good, before, theta = source.state_dict(), optimizer.state_dict(), model.theta.copy()
    owner = f"{type(optimizer).__name__}: "
    wrong = [{**good, "steps": steps} for steps in WRONG_STEPS]
    wrong += [{**good, name: value} for name in optimizer.moments for value in WRONG_VALUES]
    wrong += [{k: v for k, v in good.items() if k != name} for name in good if name != "lr"]
    wrong += [{**good, "lr": lr} for lr in (-1, float("nan"), None, "x", True)]
    wrong += [{**good, "momentum": 1}, {}]
    for state in wrong:
        with pytest.raises(ValueError, match=owner):
            optimizer.load_state_dict(state)
        np.testing.assert_equal(optimizer.state_dict(), before)
    optimizer.load_state_dict(good)
    np.testing.assert_equal(optimizer.state_dict(), good)
    np.testing.assert_array_equal(model.theta, theta)


BAD_RATES = [-1e-9, -1, float("nan"), float("inf"), -float("inf"), "x", None]
BAD_COUNTS = [0, -1, 1.5, 2.0, True, "3", None]


@pytest.mark.parametrize(
    ("name", "make", "bad"),
    [
        ("StepDecay: expected lr", lambda x: StepDecay(x, 2), BAD_RATES),
        ("StepDecay: expected every", lambda x: StepDecay(0.1, x), BAD_COUNTS),
        ("StepDecay: expected factor", lambda x: StepDecay(0.1, 2, x), BAD_RATES),
        ("Cosine: expected lr", lambda x: Cosine(x, 2), BAD_RATES),
        ("Cosine: expected steps", lambda x: Cosine(0.1, x), BAD_COUNTS),
        ("Cosine: expected final", lambda x: Cosine(0.1, 2, x), BAD_RATES),
        ("WarmUp: expected lr", lambda x: WarmUp(x, 2), BAD_RATES),
        ("OneCycle: expected lr", lambda x: OneCycle(x, 2), BAD_RATES),
        ("OneCycle: expected steps", lambda x: OneCycle(0.1, x), BAD_COUNTS),
        ("OneCycle: expected pct_start", lambda x: OneCycle(0.1, 2, x), [*BAD_RATES, 1.1]),
        ("OneCycle: expected div_factor", lambda x: OneCycle(0.1, 2, 0.3, x), [*BAD_RATES, 0]),
        (
            "OneCycle: expected final_div_factor",
            lambda x: OneCycle(0.1, 2, 0.3, 1, x),
            [*BAD_RATES, 0],
        ),
        ("WarmUp: expected steps", lambda x: WarmUp(0.1, x), BAD_COUNTS),
    ],
)
def test_schedules_check_their_arguments(name, make, bad):
    for value in bad:
        with pytest.raises(ValueError, match=f"{name} to be .* got {value!r}"):
            make(value)
    assert make(1)(0) >= 0
    if bad is BAD_RATES:
        assert make(0)(0) >= 0  # a rate of 0 is allowed


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
        (lambda m: SGD(m, clip_norm=0), r"SGD: expected clip_norm to be a finite number > 0, got 0"),
        (lambda m: AdamW(m, clip_norm="x"), r"AdamW: expected clip_norm"),
        (lambda m: Cosine(0.1, 0), r"Cosine: expected steps"),
        (lambda m: Adam(m).load_state_dict({"step": 1}), r"Adam: no state 'step', expected one of"),
        (lambda m: Adam(m).load_state_dict({"steps": 1}), r"the state has no value for 'scaled_exp_avg'"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1e-9}, "expected eps to be .*>= 0, got -1e-09"),
        ({"eps": np.nan}, "expected eps to be .* got nan"),
        ({"betas": (-1e-9, 0.9)}, r"expected betas\[0\] to be .* got -1e-09"),
        ({"betas": (1.0, 0.9)}, r"expected betas\[0\] to be .* got 1.0"),
        ({"betas": (0.9, -1e-9)}, r"expected betas\[1\] to be .* got -1e-09"),
        ({"betas": (0.9, 1.0)}, r"expected betas\[1\] to be .* got 1.0"),
    ],
)
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_checks_its_arguments(kind, options, message):
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {message}"):
        kind(Linear(2, 2, rng=0), **options)
    kind(Linear(2, 2, rng=0), betas=(0, 0), eps=0)  # allowed
