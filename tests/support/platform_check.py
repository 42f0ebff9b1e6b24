"""What every Python and NumPy must do: save, load, resume, a grid, and hold any ``np.seterr``.

``python tests/support/platform_check.py`` needs NumPy alone; a grid in processes needs the extra
``examples``. ``tests/core/test_platforms.py`` runs it under the interpreters that it finds.
"""

import importlib.util
import json
import math
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

np.seterr(all="raise")

import minidl  # noqa: E402 - after np.seterr, on purpose


def networks(n):
    x = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    data = minidl.Dataset((x[:80], np.arange(80) % 3), (x[80:], np.arange(40) % 3))
    layers = (
        minidl.Linear(6, n),
        minidl.BatchNorm(n),
        minidl.GELU(),
        minidl.Dropout(0.2),
        minidl.Linear(n, 3),
    )
    return data, minidl.Sequential(*layers, rng=0)


def train(n, path=None, epochs=4, resume=False):
    data, model = networks(n)
    history = minidl.fit(
        model, data, minidl.CrossEntropy(), minidl.Adam(model), epochs=epochs, rng=0,
        checkpoint=path and minidl.Checkpoint(path, resume=resume),
    )  # fmt: skip
    return model, history


def point(n):
    return {"loss": train(n)[1][-1].valid_loss, "none": math.nan}


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, model = networks(5)
        standardize = minidl.Standardize().fit(data)
        predictor = minidl.Predictor(model, [standardize], loss=minidl.CrossEntropy(), dataset=data)
        minidl.save(folder / "m.npz", predictor)
        again = minidl.load(folder / "m.npz")
        x = np.asarray(data.train.x)
        np.testing.assert_array_equal(again.probabilities(x), predictor.probabilities(x))

        straight, history = train(5)
        train(5, folder / "run.npz", epochs=2)
        resumed, _ = train(5, folder / "run.npz", resume=True)
        np.testing.assert_array_equal(resumed.theta, straight.theta)
        history.to_json(folder / "h.json")
        assert minidl.History.from_json(folder / "h.json").to_dict() == history.to_dict()

        for value in (minidl.softmax(np.array([0.0, -1e4])), minidl.Sigmoid()(np.array([-1e4]))):
            assert np.isfinite(value).all()
        grids = all(map(importlib.util.find_spec, ("threadpoolctl", "tqdm")))
        if grids:
            from minidl.grid.points import Grid
            from minidl.grid.runner import run

            one = run(Grid(n=[3, 4]), point, out=folder / "g", jobs=2, progress=False)
            assert repr(run(Grid(n=[3, 4]), point, out=folder / "g", progress=False)) == repr(one)
            assert [r.error for r in one] == [None, None], one
    words = {"python": platform.python_version(), "numpy": np.__version__, "grid": grids}
    print(json.dumps(words))


if __name__ == "__main__":
    main()
