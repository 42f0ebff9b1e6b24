"""Networks with quadratic activation: parameters to c and back, bounds, and the script."""

import csv
from pathlib import Path

import numpy as np
import pytest
import quadratic_network
import scripts
from homework.quadratic import (
    coefficients,
    decompose,
    distances,
    fold,
    hidden_matrix,
    least_squares,
    make_network,
    parameters,
    phi,
    polynomial,
    random_c,
    unfold,
    units_needed,
)

import minidl
from minidl.layer import write_gradients

SCRIPT = Path(__file__).resolve().parents[2] / "examples/quadratic_network.py"
KINDS = [(d, rank, inside) for d in range(1, 6) for rank in range(d + 1) for inside in (True, False) if inside or rank < d]  # fmt: skip


def new_network(d, k, seed):
    layers = minidl.Linear(d, k), minidl.Quadratic(), minidl.Linear(k, 1)
    return minidl.Sequential(*layers, rng=seed, dtype="float64")


def test_a_thousand_networks_are_linear_in_phi():
    rng = np.random.default_rng(0)
    for seed in range(1000):
        d, k = rng.integers(1, 9, 2)
        network, x = new_network(d, k, seed), rng.normal(size=(20, d))
        assert np.abs(network(x)[:, 0] - phi(x) @ fold(network)).max() <= 1e-12
        hidden = network[1](network[0](x))
        assert np.abs(hidden - phi(x) @ hidden_matrix(network).T).max() <= 1e-12


def test_phi_and_c_have_the_same_order():
    x = np.array([[2.0, 3.0, 5.0]])
    np.testing.assert_array_equal(phi(x), [[1, 2, 3, 5, 4, 6, 10, 9, 15, 25]])
    rng = np.random.default_rng(0)
    q, linear = rng.normal(size=(3, 3)), rng.normal(size=3)
    q += q.T
    c = coefficients(7.0, linear, q)
    assert phi(x)[0] @ c == pytest.approx(7 + x[0] @ linear + x[0] @ q @ x[0])
    for got, want in zip(polynomial(c), (7.0, linear, q), strict=True):
        np.testing.assert_allclose(got, want)
    w, b, v = rng.normal(size=(2, 3)), rng.normal(size=2), rng.normal(size=2)
    for got, want in zip(parameters(make_network(w, b, v, 0.5)), (w, b, v, 0.5), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("d", "rank", "inside"), KINDS)
def test_c_of_every_rank_comes_back(d, rank, inside):
    rng = np.random.default_rng([d, rank, inside])
    for _ in range(5):
        c = random_c(d, rank, inside, rng)
        need = rank if inside else rank + 2
        assert units_needed(c) == need <= d + 1
        for units in range(max(need, 1), d + 2):  # units that are not needed do no harm
            network = unfold(c, units)
            assert network[0].out_features == units
            assert np.abs(fold(network) - c).max() <= 1e-9
        if not inside:
            for epsilon in (1.0, 1e-3, 1e-6):
                assert 0 < np.linalg.norm(fold(unfold(c, rank + 1, epsilon)) - c) < epsilon


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_network_below_the_rank(rank):
    """The bound of Eckart and Young holds at the best of 200 starts; enough units reach 0."""
    for seed in range(2):
        c = random_c(3, rank, True, np.random.default_rng([rank, seed]))
        smallest = np.abs(decompose(c)[1]).min()
        assert distances(c, rank - 1, 200, 40, seed)[0].min() >= smallest > 0.4
        assert distances(c, rank, 200, 40, seed)[0].min() < 1e-9


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_linear_part_outside_the_range_needs_two_more(rank):
    for seed in range(2):
        c = random_c(3, rank, False, np.random.default_rng([rank, seed]))
        far = [distances(c, rank, 200, steps, seed)[0].min() for steps in (40, 80)]
        assert far[1] == pytest.approx(far[0], rel=0.01)  # a minimum, and not 0
        assert far[1] > 1e-3
        near, largest = distances(c, rank + 1, 200, 40, seed)
        # The infimum is 0 and not attained: whoever is close has large weights.
        assert 1e-9 < near.min() < 0.05
        slope = np.linalg.norm(decompose(c)[-1])
        assert largest[near.argmin()] > 3 * slope
        assert distances(c, rank + 2, 50, 100, seed)[0].min() < 1e-9


@pytest.mark.parametrize(
    ("units", "epsilon", "message"),
    [
        (1, 0.0, "the quadratic part of c has rank 2, the linear part is outside its range: expected 4 units"),
        (2, 0.0, "expected 4 units for c itself, or 3 and epsilon > 0 to come close, got 2 and epsilon 0"),
        (2, 0.1, "got 2 and epsilon 0.1"),
        (3, 0.0, "got 3 and epsilon 0"),
        (0, 0.0, "unfold: expected units to be a whole number >= 1, got 0"),
    ],
)  # fmt: skip
def test_unfold_refuses_with_the_reason(units, epsilon, message):
    c = coefficients(1.0, np.array([0.0, 0.0, 1.0]), np.diag([2.0, -3.0, 0.0]))
    with pytest.raises(ValueError, match=message):
        unfold(c, units, epsilon)
    with pytest.raises(ValueError, match=r"expected c of size .*, got 5"):
        polynomial(np.ones(5))


@pytest.mark.parametrize("n", [8, 60])
def test_least_squares_with_and_without_full_column_rank(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=n)
    c, loss = least_squares(x, y), minidl.SquaredError()
    assert np.abs(phi(x).T @ (phi(x) @ c - y)).max() < 1e-10
    best, _ = loss(unfold(c, 4)(x), y)
    assert best == pytest.approx(np.mean((phi(x) @ c - y) ** 2) / 2, abs=1e-12)
    assert (best < 1e-20) == (n < 10)
    for _ in range(100):
        other, _ = loss((phi(x) @ (c + rng.normal(size=10)))[:, None], y)
        assert other >= best


def test_starts_side_by_side_are_networks_trained_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    starts = quadratic_network.draw_starts(3, 2, 4, rng)

    def network(start):
        w, b, v, v0 = (p[start] for p in starts)
        return make_network(w.T, b[0], v[:, 0], float(v0[0, 0]))

    alone = [network(i) for i in range(4)]
    losses = quadratic_network.descend(x, y, starts, steps=50, lr=0.01)
    for i, one in enumerate(alone):
        loss, optimizer = minidl.SquaredError(), minidl.SGD(one, 0.01, momentum=0.9)
        for _ in range(50):
            out, backward = one.forward(x, train=True)
            write_gradients(one, backward, loss(out, y)[1])
            optimizer.step()
        assert losses[i] == pytest.approx(loss(one(x), y)[0], rel=1e-9)
        np.testing.assert_allclose(fold(network(i)), fold(one), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("target", quadratic_network.TARGETS)
def test_least_squares_is_never_above_gradient_descent(target):
    options = {"features": 3, "examples": 60, "starts": 50, "steps": 600, "lr": 0.02}
    gaps = {}
    for seed in range(1):
        for units in (2, 3, 4):
            found = quadratic_network.compare(target, units, **options, seed=seed)
            gaps[units] = found["best"] - found["least_squares"]
            assert gaps[units] >= -1e-15
            assert found["least_squares"] > 1e-4  # the noise
        assert gaps[2] > 1e-3
        assert gaps[4] < gaps[2] / 100
        if target == "generic":
            assert gaps[3] < 1e-6
        else:
            assert gaps[4] < gaps[3] / 5


def run(folder, *args, pictures=True):
    return scripts.run(SCRIPT, *args, cwd=folder, pictures=pictures)


def test_the_script(tmp_path):
    args = ("--features", 2, "--examples", 30, "--starts", 4, "--steps", 20, "--jobs", 1)
    done = run(tmp_path, *args)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/quadratic_network"
    rows = list(csv.DictReader((out / "gaps.csv").read_text().splitlines()))
    assert [(r["target"], r["units"]) for r in rows] == [(t, u) for t in ("generic", "singular") for u in "123"]  # fmt: skip
    assert all(float(r["gap"]) > -1e-15 for r in rows)
    assert (out / "gaps.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text(lines[0])
    assert run(tmp_path, *args, pictures=False).returncode == 0
    assert (out / "results.jsonl").read_text().startswith(lines[0])  # finished work was kept


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--features", "0"], "expected features to be a whole number >= 1, got '0'"),
        (["--lr", "0"], "expected lr to be a finite number > 0, got '0'"),
        (["--starts", "x"], "expected starts to be a whole number >= 1, got 'x'"),
        (["--units", "3"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line(tmp_path, args, message):
    done = run(tmp_path, *args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
