"""Train a small network on three spirals, evaluate it, save it, load it again and draw it.

Run it with ``python examples/quickstart.py``.
"""

import numpy as np
from matplotlib.colors import ListedColormap

import minidl
from minidl.view.plots import figure, save


def spirals(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n points of the plane, float32 (n, 2), and the label of each: spiral 0, 1 or 2."""
    y = rng.integers(3, size=n)
    radius = rng.uniform(0.05, 1, n)
    angle = 5 * radius + 2 * np.pi / 3 * y + rng.normal(0, 0.5, n)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return x.astype(np.float32), y


def network(seed: int) -> minidl.Sequential:
    """Return a network with two hidden layers of 64 units."""
    first, second, last = minidl.Linear(2, 64), minidl.Linear(64, 64), minidl.Linear(64, 3)
    return minidl.Sequential(first, minidl.ReLU(), second, minidl.ReLU(), last, rng=seed)


def main() -> None:
    # The data are NumPy arrays: inputs (n, features) and integer labels (n,).
    rng = np.random.default_rng(0)
    data = minidl.Dataset(
        train=spirals(2000, rng), valid=spirals(500, rng), test=spirals(1000, rng), name="spirals"
    )
    print(data)

    model = network(seed=1)
    print(model.summary())

    loss = minidl.CrossEntropy()
    optimizer = minidl.Adam(model, lr=3e-3)
    history = minidl.fit(
        model, data, loss, optimizer, epochs=30, batch_size=32, rng=2, restore_best=True
    )
    print(f"best epoch {history.best.epoch}: validation accuracy {history.best.valid_accuracy:.3f}")

    test = data.splits["test"]
    figures = minidl.evaluate(model, test, loss)
    print(f"test loss {figures['loss']:.3f}, test accuracy {figures['accuracy']:.3f}")

    minidl.save("runs/quickstart.npz", model)
    loaded = minidl.load("runs/quickstart.npz")  # needs no code that builds the network
    logits = loaded(test.x[:5])  # a model is called on an array
    print(f"classes of five test points: {logits.argmax(axis=1)}, their labels: {test.y[:5]}")
    print("the loaded model has the same weights:", np.array_equal(loaded.theta, model.theta))
    draw(model, test)


def draw(model: minidl.Sequential, test: minidl.Split) -> None:
    """Draw the class that the network predicts in the plane, with the test points."""
    line = np.linspace(-1.6, 1.6, 200, dtype=np.float32)
    u, v = np.meshgrid(line, line)
    shown = model(np.stack([u.ravel(), v.ravel()], axis=1)).argmax(axis=1).reshape(u.shape)
    picture = figure(5, 5)
    axes = picture.subplots()
    classes = ListedColormap(["C0", "C1", "C2"])
    axes.imshow(shown, classes, origin="lower", extent=(-1.6, 1.6, -1.6, 1.6), alpha=0.3)
    for label in range(3):
        axes.plot(*test.x[test.y == label].T, ".", color=f"C{label}", label=f"spiral {label}")
    title = "dots: test examples by label\nbackground: the network's class"
    axes.set(xlabel="x1", ylabel="x2", aspect="equal", title=title)
    axes.legend(loc="lower right")
    save(picture, "runs/quickstart.png", "Three spirals of points; the network follows their arms.")
    print("wrote runs/quickstart.png and the model, runs/quickstart.npz")


if __name__ == "__main__":
    main()
