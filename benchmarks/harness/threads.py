"""The number of threads of all libraries, by environment variables."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pin(threads: int) -> None:
    """Limit every library to ``threads`` threads; call it before NumPy is imported.

    ``OPENBLAS_CORETYPE`` is removed, so that OpenBLAS chooses its kernels for this processor as
    the libraries of PyTorch and JAX do.
    """
    for name in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    many = "true" if threads > 1 else "false"
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={many} intra_op_parallelism_threads={threads}"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    # torch.compile: no helper processes beside the contestants, and nothing compiled before.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ.pop("OPENBLAS_CORETYPE", None)
    os.environ.pop("OPENBLAS_L2_SIZE", None)


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Pin the threads of the processes that are started in this context."""
    before = dict(os.environ)
    pin(threads)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
