"""Training functions that worker processes can import."""

import os
import time

import numpy as np

import minidl


def product(a, b):
    return {"value": a * b, "process": os.getpid()}


def slow(a):
    time.sleep(0.15)
    return {"value": a}


def sometimes(a, b=None, *, broken, more=None):
    """Fail if the file ``broken`` names the point."""
    if broken.exists() and str(a) in broken.read_text():
        raise ArithmeticError(f"{a} is broken")
    return {"value": a}


def die(a):
    os._exit(1)


def train(width, lr):
    """A small training run, and how many BLAS threads it saw."""
    import threadpoolctl

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 50)).astype(np.float32)
    y = (x[:, :4] @ rng.normal(size=(4, 3))).argmax(axis=1)
    data = minidl.Dataset((x[:200], y[:200]), (x[200:], y[200:]))
    layers = (
        minidl.Linear(50, width),
        minidl.Dropout(0.2),
        minidl.Linear(width, 3),
    )
    model = minidl.Sequential(*layers, rng=0)
    optimizer = minidl.Adam(model, lr)
    history = minidl.fit(model, data, minidl.CrossEntropy(), optimizer, epochs=3, rng=0)
    threads = [p["num_threads"] for p in threadpoolctl.threadpool_info()]
    return {"losses": history.column("train_loss"), "threads": threads}


def anything(a, *, what):
    """Return the result that ``what`` names."""
    results = {
        "scalar": {"x": np.float32(0.5), "n": np.int64(3), "yes": np.bool_(True)},
        "array": {"x": np.arange(3, dtype=np.float32), "nested": [np.zeros((2, 1))]},
        "tuple": {"x": (1, None, "a"), 7: 2},
        "nothing": None,
        "object": {"x": object()},
        "complex": {"x": np.complex64(1j)},
        "loop": {},
    }
    results["loop"]["x"] = results["loop"]
    if what == "exit":
        raise SystemExit(3)
    return results[what] if a == 1 else {"value": a}


def full(a, *, at, marks):
    """Run out of space for the files of run ``at``; note each run in the folder ``marks``."""
    (marks / f"{a}-{time.time_ns()}").touch()
    if a != at:
        return {"value": a}
    with minidl.grid.points.keeping({"value": a}):
        raise OSError(28, "No space left on device", "models/it.npz")


def shut(a):
    """Fail to write a file for another reason than space."""
    with minidl.grid.points.keeping({"value": a}):
        raise PermissionError(13, "Permission denied", "models/it.npz")


def point(**values):
    return {"point": values, "types": [type(v).__name__ for v in values.values()]}
