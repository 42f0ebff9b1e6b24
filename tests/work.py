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


def sometimes(a, b=None, *, broken):
    if a in broken:
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
