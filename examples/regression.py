"""Regression: a small network beside linear least squares, on Friedman's first function.

    y = 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise

with noise of standard deviation 1, which is the error of the best possible model (Friedman 1991).

Run it with ``python examples/regression.py``.
"""

import numpy as np

import minidl

UNITS = np.array([1, 1000, 0.01, 50, 1])  # the features come in different units


def examples(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (n, 5) and targets (n,)."""
    u = rng.random((n, 5))
    y = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2
    y += 10 * u[:, 3] + 5 * u[:, 4] + rng.normal(size=n)
    return UNITS * u, y


def main() -> None:
    rng = np.random.default_rng(0)
    raw = minidl.Dataset(examples(2000, rng), examples(500, rng), examples(1000, rng))
    data = minidl.Standardize().fit_transform(raw)  # fitted on the training part
    print(data)

    # The loss makes it a regression: the best epoch has the lowest validation loss.
    layers = minidl.Linear(5, 64), minidl.Tanh(), minidl.Linear(64, 1)
    model = minidl.Sequential(*layers, rng=1, dtype="float64")
    optimizer = minidl.Adam(model, lr=1e-2)
    loss = minidl.SquaredError()  # half the squared error
    stopping = minidl.EarlyStopping(patience=20)
    history = minidl.fit(
        model, data, loss, optimizer, epochs=300, rng=2, callbacks=[stopping], restore_best=True
    )
    print(f"stopped after epoch {history[-1].epoch}, best epoch {history.best.epoch}")

    train, test = data.train, data.splits["test"]
    figures = minidl.evaluate(model, test, loss)
    error = np.sqrt(2 * figures["loss"])
    print(f"network: root mean squared test error {error:.2f}, R^2 {figures['r2']:.3f}")

    # The closed form for a linear model with an intercept.
    weights, *_ = np.linalg.lstsq(np.column_stack([train.x, np.ones(len(train))]), train.y)
    error = np.sqrt(np.mean((test.x @ weights[:-1] + weights[-1] - test.y) ** 2))
    print(f"least squares: root mean squared test error {error:.2f}")


if __name__ == "__main__":
    main()
