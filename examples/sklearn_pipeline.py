"""Predict which customers leave: a pipeline on a mixed table, from the search to an ONNX file.

The table is generated. Needs: pip install 'minidl[examples,sklearn,onnx]' pandas onnxruntime
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import make_column_transformer
from sklearn.metrics import ConfusionMatrixDisplay, brier_score_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import minidl
from minidl.sklearn import MLPClassifier
from minidl.view import plots

OUT = Path("runs/sklearn_pipeline")


def customers(n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return a table of n customers, and "leaves" or "stays" for each; one of five leaves."""
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "months": rng.exponential(30, n).round(),
            "bill": rng.gamma(4, 15, n).round(2),
            "calls": rng.poisson(1.5, n),
            "contract": rng.choice(["monthly", "yearly", "none"], n, p=[0.6, 0.3, 0.1]),
            "town": rng.choice(["Ames", "Boone", "Nevada", "Story City"], n),
        }
    )
    score = 0.8 * (table["calls"] - 1.5) - 0.03 * table["months"] + 0.02 * (table["bill"] - 60)
    score += np.where(table["contract"] == "yearly", -1.5, 0.5)
    score += np.where((table["age"] < 30) & (table["bill"] > 60), 2.0, 0.0)
    leaves = score + rng.logistic(0, 1, n) > 0.9
    return table, np.where(leaves, "leaves", "stays")


def main() -> None:
    table, y = customers(3000, np.random.default_rng(0))
    rest, test, y_rest, y_test = train_test_split(table, y, stratify=y, random_state=0)
    share = np.mean(y == "leaves")
    print(f"{len(rest)} customers to learn from, {len(test)} to test; {share:.0%} leave")

    # Categories become columns; the network standardises all of them, also in the ONNX file.
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["contract", "town"]), remainder="passthrough"
    )
    network = MLPClassifier(
        (32,), standardize=True, early_stopping=True, validation_fraction=0.2, max_iter=100,
        learning_rate_init=0.01, monitor="valid_loss", dtype="float32", random_state=0,
    )  # fmt: skip
    search = GridSearchCV(
        make_pipeline(columns, network),
        {"mlpclassifier__hidden_layer_sizes": [(8,), (32,)], "mlpclassifier__dropout": [0.0, 0.3]},
        cv=3,
        scoring="neg_log_loss",
    )
    search.fit(rest, y_rest)
    model = search.best_estimator_
    print(f"best settings: {search.best_params_}")
    print(f"test accuracy: {model.score(test, y_test):.4f}")
    model[-1].history_.plot(OUT / "curves.png", title="generated customers")

    weighted = make_pipeline(
        columns, MLPClassifier(**model[-1].get_params() | {"class_weight": "balanced"})
    )
    calibrated = CalibratedClassifierCV(weighted, cv=3).fit(rest, y_rest)
    weighted.fit(rest, y_rest)
    displays = {"plain": model, "balanced": weighted, "balanced, calibrated": calibrated}
    picture = plots.figure(9.6, 4.4)
    left, right = picture.subplots(1, 2)
    for name, candidate in displays.items():
        p = candidate.predict_proba(test)[:, 0]
        brier = brier_score_loss(y_test == "leaves", p)
        print(f"Brier score, {name}: {brier:.4f}")
        CalibrationDisplay.from_predictions(y_test == "leaves", p, n_bins=8, name=name, ax=left)
    left.set(
        title="reliability", xlabel="predicted probability of leaving", ylabel="share that left"
    )
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="small")
    ConfusionMatrixDisplay.from_estimator(weighted, test, y_test, ax=right, colorbar=False)
    right.set_title("confusion matrix, balanced")
    picture.suptitle("generated customers")
    shown = f"Reliability of {', '.join(displays)}, and the confusion matrix of the balanced one."
    plots.save(picture, OUT / "displays.png", shown)

    minidl.onnx.export(OUT / "model.onnx", model[-1])
    session = onnxruntime.InferenceSession(OUT / "model.onnx")
    rows = model[:-1].transform(test).astype(np.float32)
    label, probabilities = session.run(None, {"x": rows})
    difference = np.abs(probabilities - model[-1].predict_proba(rows)).max()
    print(f"onnxruntime: same labels: {bool((label == model.predict(test)).all())}, ", end="")
    print(f"probabilities within 1e-6: {bool(difference <= 1e-6)}")
    print(f"wrote pictures and the model to {OUT}")


if __name__ == "__main__":
    main()
