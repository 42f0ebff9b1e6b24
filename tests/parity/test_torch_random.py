"""TorchRandom gives the same bits as PyTorch."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from minidl import Dropout, Linear, ReLU, Sequential, TorchRandom
from minidl.checks import as_generator
from minidl.training import epoch_rng

SEEDS = [
    0,
    1,
    42,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 42,
    2**63,
    2**64 - 1,
    -1,
    -42,
    -(2**32),
    -(2**63),
    *range(100, 138 if os.environ.get("MINIDL_WHOLE") else 106),
]
SHAPES = [
    (1, 1), (1, 7), (7, 1), (2, 3), (3, 2), (5, 5), (13, 17), (16, 16), (31, 1), (64, 10),
    (32, 32), (32, 26), (100, 26), (348, 150), (784, 10), (784, 16), (784, 26), (784, 32),
    (784, 64), (784, 200),
]  # fmt: skip
# All 50 seeds at the largest size take a minute; MINIDL_WHOLE=1 runs them.
LARGE = SEEDS if os.environ.get("MINIDL_WHOLE") else [42]


@pytest.fixture(autouse=True)
def _torch_stream_as_it_was():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_initial_weights(seed):
    torch.manual_seed(seed)
    theirs = [torch.nn.Linear(i, o) for i, o in SHAPES]
    ours = Sequential(*[Linear(i, o) for i, o in SHAPES], rng=TorchRandom(seed))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.weight.value, b.weight.detach().numpy().T)
        np.testing.assert_array_equal(a.bias.value, b.bias.detach().numpy())
        assert a.weight.value.dtype == np.float32


def test_initial_weights_of_whole_networks():
    def ours(dtype="float32", seed=42):
        layers = Linear(30, 8), ReLU(), Dropout(0.3), Linear(8, 8, bias=False), ReLU(), Linear(8, 4)
        return Sequential(*layers, rng=TorchRandom(seed), dtype=dtype)

    torch.manual_seed(42)
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4))  # fmt: skip
    for module, dtype in ((theirs, "float32"), (copy.deepcopy(theirs).double(), "float64")):
        expected = [p.detach().numpy().T.ravel() for p in module.parameters()]
        np.testing.assert_array_equal(ours(dtype).theta, np.concatenate(expected))
    assert (ours(seed=43).theta != ours().theta).all()
    masks = [ours()[2].forward(np.ones((4, 9)), train=True)[0] for _ in range(2)]
    np.testing.assert_array_equal(*masks)  # dropout's streams follow from the seed too
    assert (masks[0] == 0).any()


def epochs(n, seed, batch_size):
    """Three epochs of a DataLoader's order."""
    generator = torch.Generator().manual_seed(seed)
    options = {"shuffle": True, "generator": generator, "collate_fn": list}
    loader = DataLoader(range(n), batch_size=batch_size, **options)
    return [[i for batch in loader for i in batch] for _ in range(3)]


@pytest.mark.parametrize("seed", SEEDS)
def test_three_epochs_of_batches(seed):
    for n, batch_size in ((1, 64), (2, 1), (3, 2), (10, 5), (64, 64), (65, 64), (1000, 64)):
        rng = TorchRandom(seed)
        for order in epochs(n, seed, batch_size):
            np.testing.assert_array_equal(rng.permutation(n), order)


@pytest.mark.parametrize("seed", LARGE)
def test_three_epochs_of_batches_of_the_course(seed):
    rng = TorchRandom(seed)
    for order in epochs(104_000, seed, 10_000):  # of any batches
        np.testing.assert_array_equal(rng.permutation(104_000), order)


@pytest.mark.parametrize("seed", SEEDS)
def test_randperm_and_uniform(seed):
    generator, rng = torch.Generator().manual_seed(seed), TorchRandom(seed)
    for n in (0, 1, 2, 17, 3000):
        np.testing.assert_array_equal(rng.randperm(n), torch.randperm(n, generator=generator))
        for lo, hi in ((0.0, 1.0), (-0.3, 0.1), (5.0, 5.5), (-1e-3, 1e3)):
            theirs = torch.empty(n, 2).uniform_(lo, hi, generator=generator).numpy()
            np.testing.assert_array_equal(rng.uniform(lo, hi, (n, 2)), theirs)
    assert rng.uniform() == torch.empty(1).uniform_(generator=generator).item()


def test_an_epoch_draws_more_than_a_permutation():
    # A DataLoader also draws numbers that it does not use for the order; they matter in epoch 2.
    n, rng, plain = 50, TorchRandom(3), TorchRandom(3)
    plain.bit_generator.random_raw(2)
    np.testing.assert_array_equal(plain.randperm(n), rng.permutation(n))
    plain.bit_generator.random_raw(2)
    assert (plain.randperm(n) != rng.permutation(n)).any()


def test_fit_takes_one_stream_over_all_epochs():
    rng = TorchRandom(5)
    orders = [epoch_rng(rng, epoch).permutation(20) for epoch in range(3)]
    np.testing.assert_array_equal(orders, epochs(20, 5, 4))
    assert as_generator(rng) is rng


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_continue_the_stream(copied):
    rng = TorchRandom(7)
    rng.permutation(10)
    other = copied(rng)
    assert (repr(other), str(other)) == ("TorchRandom(7)", "TorchRandom(7)")
    np.testing.assert_array_equal(other.permutation(10), rng.permutation(10))
    assert other.spawn(1)[0].random() == copied(TorchRandom(7)).spawn(1)[0].random()


@pytest.mark.parametrize("rng", [True, False, np.True_, np.False_, None, 1.0, np.float64(1), "1", b"1", [1], (1,), np.array([1]), np.random, np.random.RandomState(0), np.random.PCG64(0)], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_is_no_seed_is_refused(rng):
    """A bool would be the seed 0 or 1, which nobody means."""
    for take in (as_generator, lambda r: epoch_rng(r, 1), lambda r: Linear(3, 2, rng=r)):
        if rng is None and take not in (as_generator,):
            continue  # Linear takes None: the model draws later
        with pytest.raises(TypeError, match="rng: expected a seed"):
            take(rng)


@pytest.mark.parametrize("seed", [0, 1, 2**40, np.int64(7), np.uint8(7), np.int32(0)])
def test_a_seed_is_any_whole_number(seed):
    draws = np.random.default_rng(int(seed)).random(3)
    np.testing.assert_array_equal(as_generator(seed).random(3), draws)
    assert (epoch_rng(seed, 1).random(3) != draws).all()
    np.testing.assert_array_equal(epoch_rng(seed, 2).random(3), epoch_rng(int(seed), 2).random(3))
    sequence = np.random.SeedSequence(int(seed))
    np.testing.assert_array_equal(as_generator(sequence).random(3), draws)


def test_the_order_of_a_seed_and_an_epoch_never_changes():
    """Or results that someone published could not be had again: these are constants."""
    orders = [epoch_rng(0, epoch).permutation(10).tolist() for epoch in (1, 2)]
    assert orders == [[0, 3, 2, 7, 9, 5, 8, 6, 4, 1], [7, 1, 8, 9, 2, 4, 0, 6, 3, 5]]


def test_the_longest_permutation():
    """From here on PyTorch draws 64 bits for each number; nothing is drawn before the check."""
    rng, longest = TorchRandom(0), 2**32 // 20
    rng._raw = None
    with pytest.raises(ValueError, match=f"expected n to be at most {longest - 1}, got {longest}"):
        rng.randperm(longest)
    with pytest.raises(TypeError, match="not callable"):
        rng.randperm(longest - 1)  # accepted: this one would be drawn


def test_spawned_streams_are_independent():
    rng = TorchRandom(7)
    first, second = rng.spawn(2)
    assert len({first.random(), second.random(), rng.spawn(1)[0].random()}) == 3
    np.testing.assert_array_equal(rng.randperm(9), TorchRandom(7).randperm(9))  # nothing drawn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TorchRandom(-(2**63) - 1),
            f"TorchRandom: expected seed to be a whole number >= {-(2**63)}, got {-(2**63) - 1}",
        ),
        (lambda: TorchRandom(0.5), "seed to be a whole number >= .*, got 0.5"),
        (lambda: TorchRandom(True), "got True"),
        (lambda: TorchRandom(2**64), f"seed to be at most {2**64 - 1}, got one of 65 bits"),
        (lambda: TorchRandom(0).randperm(-1), "n to be a whole number >= 0, got -1"),
        (
            lambda: TorchRandom(0).randperm(2**32),
            "expected n to be at most 214748363, got 4294967296",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
