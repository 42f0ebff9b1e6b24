"""The number of threads of matrix products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit matrix products in this context to one thread, if threadpoolctl is installed.

    The products of small models are too short for several threads: two threads take twice as
    long as one on narrow layers, and 20 to 40 times as long on one example at a time.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1):
        yield
