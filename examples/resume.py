"""Save a checkpoint after each epoch, interrupt the training, and resume it in a fresh model.

The resumed run ends with the same weights, bit for bit, as a run that was not interrupted. The
checkpoint holds the weights, the optimizer's moments, the history and the state of dropout's
random numbers. The order of the examples depends only on the seed and the epoch.
"""

import numpy as np

import minidl
from minidl.callbacks import Run

CHECKPOINT = "runs/resume.npz"


class SaveAndInterrupt(minidl.Callback):
    """Save a checkpoint after each epoch; after epoch 3 raise what Ctrl-C raises."""

    def on_epoch(self, run: Run) -> None:
        minidl.checkpoint.save(CHECKPOINT, run.model, run.optimizer, run.history)
        if run.history[-1].epoch == 3:
            raise KeyboardInterrupt


def fresh(seed: int) -> tuple[minidl.Sequential, minidl.Adam]:
    """Return a new model and its optimizer."""
    layers = minidl.Linear(20, 64), minidl.ReLU(), minidl.Dropout(0.3), minidl.Linear(64, 4)
    model = minidl.Sequential(*layers, rng=seed)
    return model, minidl.Adam(model, lr=1e-3)


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 20)).astype(np.float32)
    y = (x @ rng.normal(size=(20, 4))).argmax(axis=1)
    data = minidl.Dataset((x[:1000], y[:1000]), (x[1000:], y[1000:]))
    loss = minidl.CrossEntropy()

    model, optimizer = fresh(seed=1)
    minidl.fit(model, data, loss, optimizer, epochs=8, rng=2)
    uninterrupted = model.theta.copy()

    model, optimizer = fresh(seed=1)
    try:
        minidl.fit(model, data, loss, optimizer, epochs=8, rng=2, callbacks=[SaveAndInterrupt()])
    except KeyboardInterrupt:
        print(f"interrupted; the checkpoint is in {CHECKPOINT}")

    model, optimizer = fresh(seed=99)  # its initial values are replaced by the saved ones
    history = minidl.checkpoint.load(CHECKPOINT, model, optimizer)
    print(f"resumed after epoch {history[-1].epoch}")
    minidl.fit(model, data, loss, optimizer, epochs=8, rng=2, history=history)
    print(f"epoch {history[-1].epoch}: validation accuracy {history[-1].valid_accuracy:.3f}")
    print("same bits as without the interruption:", np.array_equal(model.theta, uninterrupted))


if __name__ == "__main__":
    main()
