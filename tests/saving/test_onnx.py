"""ONNX files: checked by onnx, run by onnxruntime, compared with minidl; refusals by name."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort

import minidl
from minidl.testing.catalogue import LAYERS, LOSSES, MAPS

pytestmark = pytest.mark.filterwarnings("ignore:.*max_iter")

RANDOM = np.random.default_rng(0)
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}


def session(proto):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def run(model, x):
    """Return the outputs by name, for some rows, one row and none, as one."""
    proto = minidl.onnx.to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 17)]
    started = session(proto)
    names = [output.name for output in started.get_outputs()]
    whole = started.run(None, {"x": x})
    for rows in (x[:1], x[:3]):
        for part, all_rows in zip(started.run(None, {"x": rows}), whole, strict=True):
            assert part.shape == (len(rows), *all_rows.shape[1:])
    return dict(zip(names, whole, strict=True))


def trained(layer, dtype, features=6):
    """Return a model with the layer inside, whose buffers and parameters are not the first ones."""
    model = minidl.Sequential(layer, rng=0, dtype=dtype)
    x = RANDOM.normal(1, 2, (40, features)).astype(dtype)
    model.forward(x, train=True)
    model.theta[:] += RANDOM.normal(0, 0.1, model.theta.shape)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, dtype):
    model = trained(LAYERS[name](6, 4), dtype)
    x = RANDOM.normal(0, 2, (25, 6)).astype(dtype)
    outputs = run(model, x)["outputs"]
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, model(x), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 3, 26, 300])
@pytest.mark.parametrize("name", MAPS)
def test_every_map(name, k, dtype):
    """Spread and close logits, ties, equal rows, common offsets."""
    layer = minidl.Simplex(MAPS[name])
    z = RANDOM.normal(0, 1, (40, k)) * RANDOM.choice([0.01, 1, 5], (40, 1)) + RANDOM.choice(
        [0, 50], (40, 1)
    )
    z[:5] = np.round(z[:5])
    z[5] = 1
    z = z.astype(dtype)
    outputs = run(
        minidl.Sequential(layer, dtype=dtype)
        if dtype == "float32"
        else minidl.Sequential(minidl.Identity(), layer, Zero(dtype)),
        z,
    )["outputs"]
    np.testing.assert_allclose(outputs, layer(z), rtol=0, atol=TOLERANCE[dtype])


class Zero(minidl.Identity):
    """Gives a model without parameters a dtype."""

    buffers = ("zero",)

    def __init__(self, dtype):
        self.zero = np.zeros(1, dtype)


def test_a_deep_model():
    layers = minidl.Linear(6, 16), minidl.BatchNorm(16), minidl.GELU(), minidl.Dropout(0.5)
    inner = minidl.Residual(minidl.Linear(16, 16), minidl.LayerNorm(16), minidl.SiLU())
    model = trained(
        minidl.Sequential(*layers, inner, minidl.Linear(16, 5), minidl.Entmax15()), "float32"
    )
    x = RANDOM.normal(size=(30, 6)).astype(np.float32)
    np.testing.assert_allclose(run(model, x)["outputs"], model(x), rtol=0, atol=1e-6)


class Doubled(minidl.ReLU):
    def forward(self, x, *, train=False):
        y, backward = super().forward(x, train=train)
        return 2 * y, lambda dy: backward(2 * dy)


class Renamed(minidl.ReLU):
    pass


def test_layers_without_operators_are_refused_by_name():
    with pytest.raises(
        TypeError, match=r"no ONNX operators for forward of Doubled\(\); see onnx.register"
    ):
        minidl.onnx.to_onnx(minidl.Sequential(minidl.Linear(3, 3), Doubled(), rng=0))
    x = np.ones((4, 3), np.float32)
    assert run(minidl.Sequential(minidl.Linear(3, 3), Renamed(), rng=0), x)["outputs"].shape == (
        4,
        3,
    )
    with pytest.raises(TypeError, match=r"expected a Layer, a Predictor or an estimator, got 3"):
        minidl.onnx.to_onnx(3)

    class Own(type(minidl.softmax)):
        pass

    class Halved(Own):
        def project_rows(self, z):
            return super().project_rows(z / 2)

    own = minidl.Sequential(minidl.Simplex(Own()), rng=0)
    np.testing.assert_allclose(run(own, x)["outputs"], minidl.softmax(x), rtol=1e-6)
    with pytest.raises(TypeError, match="no ONNX operators for project_rows of "):
        minidl.onnx.to_onnx(minidl.Sequential(minidl.Simplex(Halved())))


class Scale(minidl.Layer):
    """Its scales are in float64, whatever the model's dtype."""

    buffers = ()

    def __init__(self, features):
        self.scales = np.linspace(0.1, 2, features)

    def forward(self, x, *, train=False):
        scales = self.scales.astype(x.dtype)
        return (1 - x) / 3 * scales - 1, lambda dy: -dy / 3 * scales


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("features", [1, 6])
def test_a_layer_of_ones_own(monkeypatch, features, dtype):
    model = minidl.Sequential(minidl.Linear(6, features), Scale(features), rng=0, dtype=dtype)
    with pytest.raises(TypeError, match="no ONNX operators for forward of Scale"):
        minidl.onnx.to_onnx(model)
    monkeypatch.setattr(minidl.onnx, "NODES", {**minidl.onnx.NODES})

    @minidl.onnx.register(Scale.forward)
    def scale(layer, x):
        return (1 - x) / 3 * layer.scales - 1

    x = RANDOM.normal(size=(20, 6)).astype(dtype)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(run(model, x)["outputs"], model(x), rtol=tolerance, atol=tolerance)


# ---- with what comes before and after the model


def dataset(classes=3, names=("ant", "bee", "cat")):
    x = RANDOM.normal(3, [1, 2, 3, 4, 5, 0], (60, 6)).astype(np.float32)
    return minidl.Dataset(
        (x, RANDOM.integers(0, classes, 60)), classes=classes, class_names=np.array(names)
    )


@pytest.mark.parametrize(
    "loss",
    ["CrossEntropy", "FenchelYoung(sparsemax)", "FenchelYoung(entmax15)", "SmoothedNLL(relumax)"],
)
def test_a_predictor_with_features_and_class_names(loss):
    data = dataset()
    standardize = minidl.Standardize().fit(data)
    pca = minidl.PCA(4).fit(standardize.transform(data))
    model = minidl.Sequential(minidl.Linear(4, 3), rng=0)
    predictor = minidl.Predictor(model, [standardize, pca], loss=LOSSES[loss].loss, dataset=data)
    found = run(predictor, data.train.x)
    assert list(found) == ["label", "probabilities"]
    assert found["label"].tolist() == predictor.predict(data.train.x).tolist()
    np.testing.assert_allclose(
        found["probabilities"], predictor.probabilities(data.train.x), rtol=0, atol=1e-6
    )


def test_a_predictor_of_pixels():
    pixels = RANDOM.integers(0, 256, (30, 36), dtype=np.uint8)
    data = minidl.Dataset((pixels, RANDOM.integers(0, 4, 30)))
    pool = minidl.AveragePool(2, (6, 6))
    model = minidl.Sequential(minidl.Linear(9, 4), rng=0)
    loss = minidl.CrossEntropy()
    minidl.fit(model, pool.transform(data), loss, minidl.Adam(model), epochs=1, rng=0)
    predictor = minidl.Predictor(model, [pool], loss=loss, dataset=data)
    found = run(predictor, pixels)["probabilities"]
    np.testing.assert_allclose(found, predictor.probabilities(pixels), rtol=0, atol=1e-6)
    with pytest.raises(TypeError, match=r"AveragePool\(\) needs its shape"):
        minidl.onnx.to_onnx(minidl.Predictor(model, [minidl.AveragePool(2)]))


def test_other_losses():
    x = RANDOM.normal(size=(20, 6)).astype(np.float32)
    model = minidl.Sequential(minidl.Linear(6, 3), rng=0)
    several = run(minidl.Predictor(model, loss=minidl.BinaryCrossEntropy()), x)
    assert np.array_equal(several["label"], (model(x) > 0).astype(int))
    np.testing.assert_allclose(
        several["probabilities"],
        minidl.BinaryCrossEntropy().probabilities(model(x)),
        rtol=0,
        atol=1e-6,
    )
    numbers = run(minidl.Predictor(model, loss=minidl.SquaredError()), x)
    assert list(numbers) == ["outputs"]
    perceptron = minidl.Predictor(model, loss=minidl.Perceptron(), dataset=dataset())
    found = run(perceptron, x)
    assert list(found) == ["label", "outputs"]
    assert found["label"].tolist() == perceptron.predict(x).tolist()


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_every_loss_gives_what_the_predictor_gives(name, width, kind):
    loss, width = LOSSES[name].loss, LOSSES[name].outputs or width
    x = RANDOM.normal(size=(20, 6)).astype(kind)
    model = minidl.Sequential(minidl.Linear(6, width), rng=width, dtype=kind)
    predictor = minidl.Predictor(model, loss=loss)
    found, predicted = run(predictor, x), predictor.predict(x)
    if predicted.dtype.kind == "f":
        assert list(found) == ["outputs"]
        np.testing.assert_allclose(found["outputs"].reshape(predicted.shape), predicted, rtol=1e-4, atol=1e-6)  # fmt: skip
    else:
        assert found["label"].dtype == np.int64
        assert found["label"].tolist() == predicted.tolist()
    if len(found) == 2 and "probabilities" in found:
        np.testing.assert_allclose(found["probabilities"], predictor.probabilities(x), atol=1e-6)
    if width <= 2 and predicted.ndim == 1 and predicted.dtype.kind != "f":
        predictor.class_names = np.array(["no", "yes"])
        assert run(predictor, x)["label"].tolist() == predictor.predict(x).tolist()


def test_losses_that_predict_in_their_own_way():
    x, model = np.ones((3, 6), np.float32), minidl.Sequential(minidl.Linear(6, 2), rng=0)

    class Reversed(minidl.CrossEntropy):
        def predict(self, outputs):
            return outputs.argmin(axis=1)

    class Own(minidl.losses.ReducedLoss):
        def per_example(self, z, y):
            return z, z

    with pytest.raises(TypeError, match=r"no ONNX operators for predict of Reversed\(\)"):
        minidl.onnx.to_onnx(minidl.Predictor(model, loss=Reversed()))
    for loss in (Own(), lambda z, y: (0.0, z)):
        assert list(run(minidl.Predictor(model, loss=loss), x)) == ["outputs"]


def test_the_file_is_written_whole(tmp_path):
    minidl.onnx.export(tmp_path / "model.onnx", minidl.Sequential(minidl.Linear(2, 2), rng=0))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


# ---- estimators


@pytest.mark.parametrize(
    "labels", [["b", "a", "c"], [-3, 7, 1], [2.0, 0.0, 1.0], [True, False, True]], ids=str
)
def test_a_classifier(labels):
    pytest.importorskip("sklearn")
    from minidl.sklearn import MLPClassifier

    data = dataset()
    y = np.array(labels)[data.train.y]
    model = MLPClassifier(
        (8,),
        loss="entmax15",
        normalization="batch",
        standardize=True,
        max_iter=3,
        tol=10,
        n_iter_no_change=1,
        random_state=0,
    )
    model.fit(data.train.x, y)
    found = run(model, data.train.x)
    assert found["label"].tolist() == model.predict(data.train.x).tolist()
    np.testing.assert_allclose(
        found["probabilities"], model.predict_proba(data.train.x), rtol=0, atol=1e-6
    )


def test_a_regressor_and_a_constant_feature():
    pytest.importorskip("sklearn")
    from minidl.sklearn import MLPRegressor

    x = RANDOM.normal(size=(50, 3))
    x[:, 1] = 7
    model = MLPRegressor(
        (8,), standardize=True, max_iter=2, tol=10, n_iter_no_change=1, random_state=0
    ).fit(x, x[:, 0])
    x[0, 1] = 8
    outputs = run(model, x)["outputs"]
    assert outputs.dtype == np.float64
    np.testing.assert_allclose(outputs[:, 0], model.predict(x), rtol=0, atol=1e-13)
