"""Run minidl on this platform and print what it computes, to the last digit.

``.ci/platforms`` runs it everywhere; on one platform it is ``python .ci/platform_probe.py``.
"""

import hashlib
import json
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

since = time.perf_counter()
import numpy as np

import minidl
from minidl.testing import check_layer

imported = time.perf_counter() - since

# The quickstart in float64: sums of products in another order change the last digits, no more.
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 2))
y = (x[:, 0] * x[:, 1] > 0).astype(int)
data = minidl.Dataset((x[:300], y[:300]), (x[300:], y[300:]))
layers = minidl.Linear(2, 16), minidl.ReLU(), minidl.Linear(16, 2)
model = minidl.Sequential(*layers, rng=1, dtype="float64")
since = time.perf_counter()
loss = minidl.CrossEntropy()
history = minidl.fit(model, data, loss, minidl.Adam(model, lr=1e-2), epochs=10, rng=2)
trained = time.perf_counter() - since

report = check_layer(minidl.Linear(5, 3, rng=0, dtype="float64"), rng.normal(size=(7, 5)))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.npz"
    minidl.save(path, model)
    same = bool((minidl.load(path).theta == model.theta).all())
warnings.simplefilter("ignore")  # without a folder for the cache, letters are drawn each time
letters = minidl.load_letters(520, 26, 26).train.x

print(
    json.dumps(
        {
            "platform": f"{sys.platform} {platform.machine()}",
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "theta": f"{float(np.abs(model.theta).sum()):.16g}",
            "valid loss": f"{history[-1].valid_loss:.16g}",
            "gradient check": report.verdict,
            "saved and loaded": same,
            "letters": hashlib.sha256(letters.tobytes()).hexdigest()[:12],
            "import s": round(imported, 2),
            "fit s": round(trained, 2),
        }
    )
)
