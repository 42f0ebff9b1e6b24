"""New rows: outputs, probabilities and evaluate on arrays; Predictor."""

import subprocess
import sys

import numpy as np
import pytest

import minidl
from minidl import (
    PCA,
    Adam,
    BinaryCrossEntropy,
    CrossEntropy,
    Dataset,
    FenchelYoung,
    Linear,
    Predictor,
    ReLU,
    Sequential,
    SmoothedNLL,
    Softmax,
    SquaredError,
    Standardize,
    relumax,
    sparsemax,
)
from minidl.testing.catalogue import LOSSES


def pixels(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.integers(0, 60, (n, 16)) + 150 * (np.arange(16) % 3 == y[:, None])
    return x.astype(np.uint8), y


def trained(data, loss=None, out=3):
    model = Sequential(Linear(data.features, 8), ReLU(), Linear(8, out), rng=0)
    minidl.fit(model, data, loss or CrossEntropy(), Adam(model, 1e-2), epochs=10, rng=0)
    return model


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int32", "bool"])
def test_outputs_of_arrays_of_any_real_dtype(dtype):
    model = Sequential(Linear(4, 3), rng=0)
    x = (np.arange(20).reshape(5, 4) % 2).astype(dtype)
    found = minidl.outputs(model, x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, model(x.astype(np.float32)))
    assert minidl.outputs(model, x[:0]).shape == (0, 3)
    assert minidl.probabilities(model, x[:0]).shape == (0, 3)


@pytest.mark.parametrize("scale", [None, 1 / 255, 2.0])
def test_new_pixels_get_the_scale_of_the_training(scale):
    x, y = pixels()
    data = Dataset((x, y), (x, y), scale=scale)
    model = trained(data)
    expected = minidl.outputs(model, data.valid)
    for copy in (model, model.copy()):
        np.testing.assert_array_equal(minidl.outputs(copy, x), expected)
        np.testing.assert_array_equal(minidl.outputs(copy, x.reshape(-1, 4, 4)), expected)
        scaled = x * np.float32(data.train.scale)
        np.testing.assert_allclose(minidl.outputs(copy, scaled), expected, rtol=1e-5)
    figures = minidl.evaluate(model, (x, y), CrossEntropy())
    assert figures == minidl.evaluate(model, data.valid, CrossEntropy())
    if scale != 2.0:
        with pytest.raises(ValueError, match=r"expected uint8 rows .* as the model was trained on pixels"):  # fmt: skip
            minidl.outputs(model, x.astype(float))


def test_a_model_trained_on_floats_takes_any_floats():
    x, y = pixels()
    model = trained(Dataset((x / 255, y)))
    assert minidl.outputs(model, x.astype(float)).shape == (60, 3)


@pytest.mark.parametrize(
    ("loss", "map"),
    [
        (None, minidl.softmax),
        (CrossEntropy(), minidl.softmax),
        (FenchelYoung(sparsemax), sparsemax),
        (SmoothedNLL(relumax(2.0)), relumax(2.0)),
        (BinaryCrossEntropy(), lambda z: 1 / (1 + np.exp(-z))),
    ],
)
def test_probabilities_follow_the_loss(loss, map):
    x = np.random.default_rng(0).normal(size=(6, 4))
    model = Sequential(Linear(4, 3), rng=0, dtype="float64")
    np.testing.assert_allclose(minidl.probabilities(model, x, loss), map(model(x)), rtol=1e-12)


def test_probabilities_of_a_model_that_gives_them_and_of_a_regression():
    x = np.random.default_rng(0).normal(size=(6, 4))
    model = Sequential(Linear(4, 3), Softmax(), rng=0, dtype="float64")
    np.testing.assert_array_equal(minidl.probabilities(model, x), model(x))
    with pytest.raises(TypeError, match=r"SquaredError\(\) has no probabilities of classes"):
        minidl.probabilities(model, x, SquaredError())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(4), ValueError, r"outputs: expected x of shape \(n, features\), got \(4,\)"),
        (np.zeros((2, 5)), ValueError, r"Linear\(4, 3\): expected x of shape \(n, 4\), got \(2, 5\)"),
        (np.array([["a"] * 4]), TypeError, "outputs: expected x of real numbers"),
        (np.ma.masked_equal(np.zeros((2, 4)), 0), TypeError, "outputs: expected x without a mask"),
    ],
)  # fmt: skip
def test_wrong_rows(x, error, message):
    with pytest.raises(error, match=message):
        minidl.outputs(Sequential(Linear(4, 3), rng=0), x)


# ---------------------------------------------------------------- Predictor


@pytest.mark.parametrize("kind", ["pixels", "floats"])
def test_a_predictor_repeats_the_steps_of_the_training(kind):
    x, y = pixels()
    x = x if kind == "pixels" else x / 7.0
    names = np.array(["ant", "bee", "cat"])[y]
    scale = 1 / 255 if kind == "pixels" else None
    raw = Dataset.from_labels((x, names), (x[:20], names[:20]), scale=scale)
    standardize, pca = Standardize().fit(raw), PCA(5)
    data = pca.fit_transform(standardize.transform(raw))
    model = trained(data)
    predictor = Predictor(model, [standardize, pca], loss=CrossEntropy(), dataset=raw)
    new = x[:20]
    np.testing.assert_allclose(predictor.outputs(new), minidl.outputs(model, data.valid), rtol=1e-5)
    assert np.mean(predictor.predict(new) == names[:20]) > 0.9
    np.testing.assert_allclose(predictor.probabilities(new).sum(axis=1), 1, rtol=1e-5)
    assert repr(predictor).startswith("Predictor(Standardize(), PCA(5), Sequential(")


def test_a_predictor_without_names_gives_numbers():
    x, y = pixels()
    data = Dataset((x, y))
    predictor = Predictor(trained(data), dataset=data)
    assert predictor.predict(x).dtype.kind == "i"
    assert predictor.input_scale == 1 / 256
    with pytest.raises(TypeError, match=r"expected a list of fitted features, .* got \[<class "):
        Predictor(trained(data), [Standardize])


@pytest.mark.parametrize("model", [3, "model.npz", None, Linear, int, Standardize(), lambda x: x])
def test_a_model_is_checked_when_a_predictor_is_made(model):
    with pytest.raises(TypeError, match=r"^Predictor: expected a model, got "):
        Predictor(model)


@pytest.mark.parametrize("kind", ["pixels", "floats"])
def test_a_predictor_is_saved_with_its_steps(tmp_path, kind):
    x, y = pixels()
    x = x if kind == "pixels" else x / 7.0
    names = np.array(["ant", "bee", "cat"])[y]
    raw = Dataset.from_labels((x, names), scale=1 / 255 if kind == "pixels" else None)
    steps = [Standardize().fit(raw)]
    steps.append(PCA(0.9).fit(steps[0].transform(raw)))
    loss = SmoothedNLL(relumax(2.0), eps=0.1)
    model = trained(steps[1].transform(steps[0].transform(raw)), loss)
    predictor = Predictor(model, steps, loss=loss, dataset=raw)
    minidl.save(tmp_path / "p.npz", predictor)
    code = (
        "import sys, numpy as np, minidl\n"
        "p = minidl.load(sys.argv[1])\n"
        "x = np.load(sys.argv[2])\n"
        "np.savez(sys.argv[3], outputs=p.outputs(x), p=p.probabilities(x), names=p.predict(x))\n"
    )
    np.save(tmp_path / "x.npy", x)
    files = [tmp_path / name for name in ("p.npz", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)  # a fresh process
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["outputs"], predictor.outputs(x))
        np.testing.assert_array_equal(out["p"], predictor.probabilities(x))
        assert out["names"].tolist() == predictor.predict(x).tolist()


def test_an_own_feature_in_a_file(tmp_path):
    class Roots(minidl.data.features.Feature):
        def apply(self, x):
            return np.sqrt(x)

    x, y = pixels()
    data = Roots().fit_transform(Dataset((x, y)))
    predictor = Predictor(trained(data), [Roots()])
    minidl.save(tmp_path / "p.npz", predictor)
    with pytest.raises(ValueError, match="class 'Roots' is not known"):
        minidl.load(tmp_path / "p.npz")
    loaded = minidl.load(tmp_path / "p.npz", layers=[Roots])
    np.testing.assert_array_equal(loaded.outputs(x), predictor.outputs(x))


# ---------------------------------------------------------------- the loss says what is predicted

PREDICTED = {  # from the outputs z (n, K), by plain loops
    "ClassLoss": lambda z: [max(range(len(row)), key=lambda k: (row[k], -k)) for row in z],
    "BinaryLogistic": lambda z: [1 if row[0] > 0 else -1 for row in z],
    "BinaryCrossEntropy": lambda z: [[int(v > 0) for v in row] for row in z],
    "NumberLoss": lambda z: z.tolist(),
    "Poisson": lambda z: np.exp(z).tolist(),
}


def in_words(loss, z):
    """Return what a loss predicts for the outputs; one value for a row is no list."""
    kind = next(c.__name__ for c in type(loss).__mro__ if c.__name__ in PREDICTED)
    rows = PREDICTED[kind](z)
    several = isinstance(rows[0], list) and len(rows[0]) > 1
    return rows if several else [row[0] if isinstance(row, list) else row for row in rows]


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_says_what_a_predictor_predicts(name, width, kind, tmp_path):
    loss, fixed = LOSSES[name].loss, LOSSES[name].outputs
    model = Sequential(Linear(4, fixed or width), rng=width, dtype=kind)
    x = np.random.default_rng(width).normal(size=(30, 4))
    predictor = Predictor(model, loss=loss)
    expected = in_words(loss, minidl.outputs(model, x))
    assert predictor.predict(x).tolist() == loss.predict(model(x.astype(kind))).tolist() == expected
    minidl.save(tmp_path / "p.npz", predictor)
    np.testing.assert_array_equal(minidl.load(tmp_path / "p.npz").predict(x), predictor.predict(x))


@pytest.mark.parametrize("names", [["no", "yes"], [3, 7], [False, True]], ids=str)
@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), minidl.BinaryLogistic(), CrossEntropy()])
def test_names_of_one_logit_and_of_two(loss, names):
    x = np.random.default_rng(0).normal(size=(50, 4))
    data = Dataset.from_labels((x, np.array(names)[(x[:, 0] > 0).astype(int)]))
    model = Sequential(Linear(4, 1 + isinstance(loss, CrossEntropy)), rng=0, dtype="float64")
    z = minidl.outputs(model, x)
    predictor = Predictor(model, loss=loss, dataset=data)
    expected = [names[int(v)] for v in (z[:, -1] > (0 if z.shape[1] == 1 else z[:, 0]))]
    assert predictor.predict(x).tolist() == expected
    assert len(set(expected)) == 2


def plain(z, y):
    return float(np.square(z - y).mean()), 2 * (z - y) / z.size


class OwnLoss(minidl.losses.ReducedLoss):
    def per_example(self, z, y):
        return np.square(z - y), 2 * (z - y)


class Rounded(OwnLoss):
    def predict(self, outputs):
        return np.round(outputs[:, 0]).astype(int)


def test_a_loss_that_does_not_say_what_it_predicts_is_refused():
    x, model = np.ones((3, 4)), Sequential(Linear(4, 2), rng=0)
    for loss, name in ((plain, "plain"), (OwnLoss(), r"OwnLoss\(\)"), (lambda z, y: 0, "<lambda>")):
        with pytest.raises(TypeError, match=rf"^{name} does not .* define predict\(outputs\) in"):
            Predictor(model, loss=loss).predict(x)
        with pytest.raises(TypeError, match=rf"^probabilities: {name} has no probabilities"):
            Predictor(model, loss=loss).probabilities(x)
    own = Predictor(model, loss=Rounded())
    assert own.predict(x).tolist() == np.round(own.outputs(x)[:, 0]).tolist()


def test_without_a_loss_one_output_says_nothing():
    x = np.random.default_rng(0).normal(size=(3, 4))
    one, several = (Sequential(Linear(4, k), rng=0) for k in (1, 3))
    for ask in (Predictor(one).predict, Predictor(one).probabilities):
        with pytest.raises(TypeError, match="one output may be a number, a logit or a sign; expected the loss"):  # fmt: skip
            ask(x)
    assert Predictor(several).predict(x).tolist() == several(x.astype("f4")).argmax(axis=1).tolist()
    with pytest.raises(TypeError, match="the data set has no classes; expected the loss"):
        Predictor(several, dataset=Dataset((x, np.ones((3, 3)))))
