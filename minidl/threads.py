"""How many threads matrix products use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within this context matrix products use one thread, where threadpoolctl is installed.

    The products of these models are small. Two threads that wait for each other take twice as
    long as one on narrow layers, and dozens of times as long on one example at a time.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1):
        yield
