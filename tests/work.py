"""Training functions that worker processes can import."""

import os
import time

import numpy as np

import minidl


def product(point):
    return {"value": point["a"] * point["b"], "process": os.getpid()}


def slow(point):
    time.sleep(0.15)
    return {"value": point["a"]}


def sometimes(point, *, broken):
    if point["a"] in broken:
        raise ArithmeticError(f"{point['a']} is broken")
    return {"value": point["a"]}


def die(point):
    os._exit(1)


def train(point):
    """A small training run, and how many BLAS threads it saw."""
    import threadpoolctl

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 50)).astype(np.float32)
    y = (x[:, :4] @ rng.normal(size=(4, 3))).argmax(axis=1)
    data = minidl.Dataset((x[:200], y[:200]), (x[200:], y[200:]))
    layers = (
        minidl.Linear(50, point["width"]),
        minidl.Dropout(0.2),
        minidl.Linear(point["width"], 3),
    )
    model = minidl.Sequential(*layers, rng=0)
    optimizer = minidl.Adam(model, point["lr"])
    history = minidl.fit(model, data, minidl.CrossEntropy(), optimizer, epochs=3, rng=0)
    threads = [p["num_threads"] for p in threadpoolctl.threadpool_info()]
    return {"losses": history.column("train_loss"), "threads": threads}
