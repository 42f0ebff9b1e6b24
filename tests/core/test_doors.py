"""Wrong arguments are errors that name the owner, where a user enters."""

import numpy as np
import pytest

import minidl
from minidl import Adam, Dataset, Linear, Sequential, init, metrics
from minidl.view import plots

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
MODEL = Sequential(Linear(4, 3), rng=0, dtype="float64")


def fit(**options):
    return minidl.fit(MODEL, Dataset((X, Y)), minidl.CrossEntropy(), Adam(MODEL), epochs=1, rng=0, **options)  # fmt: skip


PIXELS = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minidl.evaluate(MODEL, (X, Y), minidl.CrossEntropy(), [metrics.accuracy]), "evaluate: expected metrics by name, as .*, got list"),
        (lambda: minidl.evaluate(MODEL, (X, Y), "mse"), r"evaluate: expected a loss as CrossEntropy\(\), got 'mse'"),
        (lambda: fit(metrics=[metrics.accuracy]), "fit: expected metrics by name, as .*, got list"),
        (lambda: fit(metrics={"a": 1}), "fit: expected metrics by name, as .*, got dict"),
        (lambda: minidl.fit_online(MODEL, (X, Y), minidl.CrossEntropy(), lr=0.1, epochs=1, rng=0), r"fit_online: expected a Dataset, as Dataset\(\(x, y\)\), got a tuple"),
        (lambda: minidl.fit_side_by_side(MODEL, Dataset((X, Y)), minidl.CrossEntropy(), epochs=1, rng=0), "fit_side_by_side: expected at least one run in a list, .* got Sequential"),
        (lambda: minidl.fit(MODEL, Dataset((X, Y)), minidl.CrossEntropy(), Adam(MODEL), epochs=1, rng=-1), r"rng: expected a seed \(int >= 0\)"),
        (lambda: minidl.Cosine("0.1", 10), "Cosine: expected lr to be a finite number >= 0, got '0.1'"),
        (lambda: init.normal("0"), "normal: expected mean to be a finite number, got '0'"),
        (lambda: Linear(4, 3, weight_init=None), "Linear: expected weight_init to be a function, got None"),
        (lambda: metrics.r2(np.array([["a"]]), np.array([["b"]])), "r2: expected outputs of real numbers, got dtype <U1"),
        (lambda: minidl.CrossEntropy()([["a"]], [0]), "CrossEntropy: expected logits of dtype float32 or float64, got <U1"),
        (lambda: Dataset(None), r"data: train: expected \(x, y\), \(x, y, weight\) or a Split, got None"),
        (lambda: minidl.evaluate(Linear, (X, Y), minidl.CrossEntropy()), "outputs: expected a model, got the class Linear"),
        (lambda: minidl.save("", MODEL), "expected a path, got ''"),
        (lambda: minidl.safetensors.save("x", 3), "safetensors: expected a Layer as model, got 3"),
        (lambda: plots.line_plot("x.png", title=3), "line_plot: expected title to be a text, got 3"),
        (lambda: plots.line_plot("x.abc", plots.Panel({"a": ([1], [1])}, "x", "y")), "Format 'abc' is not supported"),
        (lambda: fit(monitor=-1), "fit: no metric -1 to monitor"),
        (lambda: fit(callbacks=-1), r"fit: expected callbacks=\[EarlyStopping\(\)\], got -1"),
        (lambda: minidl.fit_side_by_side([MODEL], Dataset((X, Y)), minidl.CrossEntropy(), epochs=1, rng=0), r"fit_side_by_side: expected .* as \[OnlineRun\(model, lr\)\], got \[Sequential"),
        (lambda: minidl.compounding(3, "x"), "compounding: expected a RandomState or a Generator, got 'x'"),
        (lambda: minidl.outputs("model", X), "outputs: expected a model, got str"),
        (lambda: minidl.Standardize().fit(X), r"Standardize: expected dataset to be a Dataset, got an array of shape \(12, 4\)"),
        (lambda: minidl.PCA(2).transform((X, Y)), "PCA: expected dataset to be a Dataset, got a tuple"),
        (lambda: minidl.Predictor(int), "Predictor: expected a model, got the class int"),
        (lambda: minidl.Predictor(MODEL, 3), "Predictor: expected a list of fitted features, as .*, got 3"),
        (lambda: minidl.Predictor(MODEL, dataset=(X, Y)), "Predictor: expected dataset to be a Dataset"),
        (lambda: Adam(MODEL, minidl.Cosine), "Adam: expected lr to be a finite number >= 0, got <class"),
        (lambda: minidl.WarmUp(minidl.Cosine, 3), "WarmUp: expected lr to be a finite number >= 0, got <class"),
        (lambda: minidl.SGD(MODEL, "0.1"), "SGD: expected lr to be a finite number >= 0, got '0.1'"),
        (lambda: minidl.SGD(MODEL, 0.1, weight_decay="3"), "SGD: expected weight_decay to be a finite number >= 0, got '3'"),
        (lambda: minidl.SGD(MODEL, 10**400), "SGD: expected lr to be a finite number"),
        (lambda: Adam(MODEL, betas=0.9), "Adam: expected two betas, got 0.9"),
        (lambda: Linear(4, 3, bias_init=0.0), "Linear: expected bias_init to be a function, got 0.0"),
        (lambda: Dataset((PIXELS, Y[:3]), scale=0), "data: train: expected scale to be other than 0, got 0"),
        (lambda: minidl.Simplex(2.5), "Simplex: expected map to be a SimplexMap, got 2.5"),
        (lambda: minidl.Softmax("abc"), "Softmax: expected axis to be a whole number"),
        (lambda: minidl.softmax(X, "abc"), r"softmax: expected z with an axis 'abc', got shape \(12, 4\)"),
        (lambda: minidl.softmax(X, 0.5), "softmax: expected z with an axis 0.5"),
        (lambda: minidl.AveragePool(shape=3), r"AveragePool: expected shape to be \(height, width\), got 3"),
        (lambda: minidl.SquaredError()(2.5, Y), "SquaredError: expected logits with rows"),
        (lambda: minidl.SquaredError(np.zeros(2)), "SquaredError: expected reduction 'mean' or 'sum'"),
        (lambda: minidl.Parameter("abc"), "Parameter: expected value of real numbers, got dtype <U3"),
        (lambda: Linear(4, 3, rng=-1), "rng: expected a seed"),
        (lambda: minidl.load(3), "expected a path, got 3"),
        (lambda: minidl.load("m.npz", layers="abc"), "load: expected layers to be classes, got 'abc'"),
        (lambda: minidl.load("m.npz", layers=Linear), "load: expected layers to be classes, got <class"),
        (lambda: Linear(4, 3, weight_init=init.normal), "Linear: expected weight_init to be a function, got <class"),
        (lambda: minidl.grid.run(3, print, out="g"), "run: expected a Grid and a function, got 3"),
        (lambda: minidl.grid.run(minidl.grid.Grid(a=[1]), "f", out="g"), "run: expected a Grid and a function"),
        (lambda: minidl.grid.run(minidl.grid.Grid(a=[1]), print, out="g", settings=3), "run: expected settings by name"),
        (lambda: minidl.register_layer(3), "register_layer: expected a class, got 3"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("dtype", ["abc", "float16", 3, True, "U9", int, [], np.zeros(3)])
@pytest.mark.parametrize("make", [lambda **o: Linear(4, 3, **o), lambda **o: minidl.LayerNorm(4, **o), lambda **o: minidl.BatchNorm(4, **o), Sequential])  # fmt: skip
def test_a_wrong_dtype_is_named(make, dtype):
    with pytest.raises(ValueError, match=r"\w: expected dtype float32 or float64, got "):
        make(dtype=dtype)


@pytest.mark.parametrize("x", [np.arange(3), "abc", [None], np.zeros(3, complex), [1, 2]])
@pytest.mark.parametrize("kind", [minidl.ReLU, minidl.LeakyReLU, minidl.ELU, minidl.GELU, minidl.SiLU, minidl.Softplus, minidl.Tanh, minidl.Sigmoid, minidl.Quadratic, minidl.Softmax])  # fmt: skip
def test_activations_take_floats(kind, x):
    for call in (kind(), kind().forward):
        with pytest.raises(TypeError, match=r": expected [xz] of dtype float32 or float64, got "):
            call(x)


class Scale(minidl.Callback):
    """Changes gradients and parameters in place, as the docstrings of ``Callback`` say."""

    def __init__(self, gradient, parameters):
        self.gradient, self.parameters = gradient, parameters

    def on_gradient(self, run):
        run.model.grad *= self.gradient

    def on_batch(self, run):
        run.model.theta *= self.parameters


def test_vectors_change_in_place():
    """``run.model.grad *= 2`` works; another vector, which no parameter views, is refused."""

    def trained(lr, *callbacks):
        model = MODEL.copy()
        minidl.fit(model, Dataset((X, Y)), minidl.CrossEntropy(), minidl.SGD(model, lr), epochs=1, rng=0, callbacks=callbacks)  # fmt: skip
        return model.theta

    assert trained(0.1, Scale(2, 0.5)).tobytes() == (0.5 * trained(0.2)).tobytes()
    for name in ("theta", "grad"):
        with pytest.raises(
            ValueError, match=rf"Sequential: cannot replace '{name}'.*model.{name}\[:\] = "
        ):
            setattr(MODEL, name, np.zeros(15))


@pytest.mark.parametrize("loss", [minidl.ReLU(), MODEL, len, minidl.CrossEntropy, "mse", 3, None])
def test_what_is_no_loss(loss):
    optimizer = Adam(MODEL)
    with pytest.raises(TypeError, match=r"^fit: expected a loss as CrossEntropy\(\), got "):
        minidl.fit(MODEL, Dataset((X, Y)), loss, optimizer, epochs=1, rng=0)
    with pytest.raises(TypeError, match=r"^evaluate: expected a loss"):
        minidl.evaluate(MODEL, (X, Y), loss)


def test_a_name_that_is_not_utf_8():
    assert Dataset((X, Y), name="a\udcff").title == "a?"


def test_doors_of_parity():
    pytest.importorskip("torch")
    compare, loss = minidl.parity.compare, minidl.CrossEntropy()
    with pytest.raises(TypeError, match=r"compare: expected an optimizer as Adam\(model\), got 3"):
        compare(MODEL, loss, 3, [])
    with pytest.raises(TypeError, match=r"compare: expected batches as \[\(x, y\)\], got 3"):
        compare(MODEL, loss, Adam(MODEL), 3)
    with pytest.raises(TypeError, match=r"from_torch: expected a module of PyTorch, got 3"):
        minidl.parity.from_torch(3)
