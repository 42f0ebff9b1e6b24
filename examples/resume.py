"""Interrupt a training, and let the same call go on from its checkpoint.

The resumed run ends with the same weights, bit for bit, as a run that was not interrupted. The
checkpoint holds the weights, the optimizer's moments, the history, the state of dropout's random
numbers, of the order of the examples, and of callbacks.
"""

import tempfile
from pathlib import Path

import numpy as np

import minidl
from minidl.callbacks import Run


class Interrupt(minidl.Callback):
    """Raise what Ctrl-C raises, in the middle of epoch 4."""

    only_watches = True  # the call that resumes does without it

    def on_batch(self, run: Run) -> None:
        if run.optimizer.steps == 3 * run.batches + 5:
            raise KeyboardInterrupt


def train(
    data: minidl.Dataset, path: Path, callbacks: list[minidl.Callback] | None = None
) -> minidl.Sequential:
    """Train a new model; go on from the file if there is one."""
    layers = minidl.Linear(20, 64), minidl.ReLU(), minidl.Dropout(0.3), minidl.Linear(64, 4)
    model = minidl.Sequential(*layers, rng=1)
    history = minidl.fit(
        model,
        data,
        minidl.CrossEntropy(),
        minidl.Adam(model, lr=1e-3),
        epochs=8,
        rng=2,
        callbacks=callbacks,
        checkpoint=minidl.Checkpoint(path, resume=True),
    )
    print(f"epoch {history[-1].epoch}: validation accuracy {history[-1].valid_accuracy:.3f}")
    return model


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 20)).astype(np.float32)
    y = (x @ rng.normal(size=(20, 4))).argmax(axis=1)
    data = minidl.Dataset((x[:1000], y[:1000]), (x[1000:], y[1000:]))
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted = train(data, Path(folder) / "straight.npz")
        path = Path(folder) / "run.npz"
        try:
            train(data, path, [Interrupt()])
        except KeyboardInterrupt:
            print("interrupted in epoch 4; the checkpoint has epoch 3")
        model = train(data, path)  # the same call
    same = np.array_equal(model.theta, uninterrupted.theta)
    print("same bits as without the interruption:", same)


if __name__ == "__main__":
    main()
