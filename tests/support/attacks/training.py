"""A small training with checkpoints: ``training.py FUNCTION RNG --out FOLDER``.

Its outcome, without durations, is the weights, the best weights, the records and the state of a
callback; it is written when the training has ended.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numeric import flat

import minidl
from minidl import CrossEntropy, Dropout, Linear, ReLU, Sequential, TorchRandom, compounding

ORDERS = {
    "seed": lambda: 5,
    "SeedSequence": lambda: np.random.SeedSequence(5),
    "PCG64": lambda: np.random.default_rng(5),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(5)),
    "TorchRandom": lambda: TorchRandom(5),
    "compounding": lambda: compounding(200, np.random.RandomState(5)),
}


class Count(minidl.Callback):
    """Counts the epochs, and makes each last a little, so that most shots hit the training."""

    epochs = 0

    def on_epoch(self, run):
        self.epochs += 1
        time.sleep(0.02)

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("function", choices=("fit", "fit_online"))
    parser.add_argument("rng", choices=ORDERS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(250, 6)).astype(np.float32), draw.integers(0, 3, 250)
    data = minidl.Dataset((x[:200], y[:200]), (x[200:], y[200:]))
    model = Sequential(Linear(6, 8), ReLU(), Dropout(0.3), Linear(8, 3), rng=0)
    count = Count()
    options = {"epochs": 60, "rng": ORDERS[args.rng](), "callbacks": [count], "checkpoint": minidl.Checkpoint(args.out / "run.npz", resume=True)}  # fmt: skip
    if args.function == "fit":
        schedule = minidl.WarmUp(minidl.Cosine(1e-2, 240), 20)
        history = minidl.fit(model, data, CrossEntropy(), minidl.Adam(model, schedule), **options)
    else:
        history = minidl.fit_online(model, data, CrossEntropy(), lr=1e-3, **options)
    records = [{k: v for k, v in r.to_dict().items() if k != "seconds"} for r in history]
    weights = [v.tobytes().hex() for v in (model.theta, flat(history.best_state))]
    (args.out / "outcome.json").write_text(json.dumps([weights, records, count.epochs]))


if __name__ == "__main__":
    main()
