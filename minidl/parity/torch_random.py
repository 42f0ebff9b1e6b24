"""PyTorch's random numbers, computed with NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.checks import Array, check_int


class TorchRandom(np.random.Generator):
    """PyTorch's random numbers on the CPU, bit for bit, without PyTorch.

    Passed as ``rng``, it gives a run the initial weights and the batches of a PyTorch script with
    the same seed: those of ``nn.Linear`` after ``torch.manual_seed(seed)``, drawn in float32 for a
    float64 model too, as for ``module.double()``; and those of
    ``DataLoader(shuffle=True, generator=...)``. Nothing else is reproduced: ``spawn`` (for the
    streams of dropout layers) returns NumPy's default generators, and all other methods are
    NumPy's own, on the same stream.

    Parameters
    ----------
    seed : int
        From -2^63 to 2^64 - 1, as ``torch.manual_seed`` takes: a negative seed s is 2^64 + s.
        Only the lower 32 bits matter, as in PyTorch's generator.

    Notes
    -----
    PyTorch's generator is MT19937 (Matsumoto and Nishimura 1998) with the authors' seeding of 2002,
    as that of ``numpy.random.RandomState``. Verified against PyTorch 2.13.

    Examples
    --------
    >>> model = Sequential(Linear(12, 32), ReLU(), Linear(32, 5), rng=TorchRandom(42))
    >>> optimizer = SGD(model, lr=0.1)
    >>> history = fit(model, data, loss, optimizer, epochs=1, rng=TorchRandom(42))
    """

    def __init__(self, seed: int) -> None:
        self.seed = check_int("TorchRandom", "seed", seed, low=-(2**63), high=2**64 - 1)
        bits = np.random.MT19937(self.seed % 2**64)  # spawn() derives its streams from this seed
        state: Any = np.random.RandomState(self.seed % 2**32).get_state(legacy=False)
        bits.state = state
        super().__init__(bits)

    def _raw(self, n: int) -> Array:
        """Return the next ``n`` numbers of 32 bits."""
        return self.bit_generator.random_raw(n)

    def uniform(  # type: ignore[override]
        self, low: float = 0.0, high: float = 1.0, size: int | tuple[int, ...] | None = None
    ) -> Any:
        """Draw the float32 numbers of ``Tensor.uniform_``, returned as float64."""
        lo, hi = np.float32(low), np.float32(high)
        shape = () if size is None else size
        draws = (self._raw(int(np.prod(shape))) & 0xFFFFFF) * 2.0**-24
        # Product and sum are exact in float64, so this rounds once, like a fused multiply-add.
        numbers = (draws * float(hi - lo) + float(lo)).astype(np.float32).astype(np.float64)
        return numbers.reshape(shape)[()]

    def randperm(self, n: int) -> Array:
        """Return ``torch.randperm(n, generator=self)`` as int64."""
        # For a longer one PyTorch draws 64 bits for each number.
        n = check_int("TorchRandom", "n", n, low=0, high=2**32 // 20 - 1)
        jumps = self._raw(max(n - 1, 0)) % np.arange(n, 1, -1, dtype=np.uint64)
        order = list(range(n))
        for k, jump in enumerate(jumps.tolist()):
            order[k], order[k + jump] = order[k + jump], order[k]
        return np.array(order, np.int64)

    def permutation(self, x: int) -> Array:  # type: ignore[override]
        """Return one epoch's order of ``DataLoader(shuffle=True, generator=self)`` of ``x`` rows.

        The loader draws a seed for its workers (two numbers), then the order. At the end of the
        epoch its sampler draws a second order and does not use it.
        """
        self._raw(2)
        order = self.randperm(x)
        self._raw(max(x - 1, 0))
        return order

    def spawn(self, n_children: int) -> list[np.random.Generator]:
        """Return independent NumPy generators; PyTorch has no counterpart."""
        seeds = self.bit_generator.seed_seq.spawn(n_children)  # type: ignore[attr-defined]
        return [np.random.default_rng(seed) for seed in seeds]

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchRandom, (self.seed,), self.bit_generator.state

    def __setstate__(self, state: Any) -> None:
        self.bit_generator.state = state

    def __repr__(self) -> str:
        return f"TorchRandom({self.seed})"

    __str__ = __repr__
