"""Models that load by themselves: built-in and own layers, in a fresh process, refused by name."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Identity, Layer, Linear, Parameter, ReLU, Residual, Sequential, Tanh
from minidl.data.features import Feature
from minidl.saving.describe import build, describe, difference
from minidl.testing.catalogue import LAYERS, LOSSES

ROOT = Path(__file__).resolve().parents[2]


def there_and_back(tmp_path, model, **options):
    path = tmp_path / "model.npz"
    minidl.save(path, model)
    back = minidl.load(path, **options)
    assert repr(back) == repr(model)
    assert type(back) is type(model)
    assert back.dtype == model.dtype
    np.testing.assert_equal(back.state_dict(), model.state_dict())
    return back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_the_catalogue(tmp_path, name, dtype):
    model = Sequential(LAYERS[name](5, 5), Linear(5, 3), rng=0, dtype=dtype)
    rng = np.random.default_rng(0)
    model.theta[:] += rng.normal(size=model.theta.size)
    x = rng.normal(size=(6, 5)).astype(dtype)
    model.forward(x, train=True)  # running statistics move
    back = there_and_back(tmp_path, model)
    np.testing.assert_array_equal(back(x), model(x))
    assert describe(back) == describe(model)
    back.theta[:] = 0
    assert model.theta.any()


def test_a_fresh_process_needs_no_code(tmp_path):
    inner = Residual(Linear(8, 8, bias=False), minidl.Relumax(2.5), rng=1)
    model = Sequential(Linear(5, 8, weight_init=minidl.init.he), minidl.BatchNorm(8, momentum=None, eps=1e-3), minidl.LeakyReLU(0.3), inner, minidl.Dropout(0.3), Sequential(minidl.GELU("tanh"), Linear(8, 3)), rng=0)  # fmt: skip
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("f")
    model.forward(x, train=True)
    minidl.save(tmp_path / "model.npz", model)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import minidl, numpy as np\n"
        f"model = minidl.load({str(tmp_path / 'model.npz')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, model(np.load({str(tmp_path / 'x.npy')!r})))\n"
        "print(model)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)  # fmt: skip
    assert done.stdout.strip() == repr(model)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(x))
    back = minidl.load(tmp_path / "model.npz", rng=3)
    assert (back[1].momentum, back[1].eps, back[2].slope) == (None, 1e-3, 0.3)
    back.forward(x, train=True)  # rng gave Dropout a stream
    with pytest.raises(ValueError, match="needs rng="):
        minidl.load(tmp_path / "model.npz").forward(x, train=True)


# Layers of the user's own, with no code for saving


class Scale(Layer):
    """Arguments under the names of attributes, or only recorded."""

    def __init__(self, features, start=1.0, *, name="scale", rng=None):
        self.gain = Parameter(np.full(features, start, "f"))
        self.name = name

    def forward(self, x, *, train=False):
        def backward(dy):
            self.gain.grad = (dy * x).sum(0)
            return dy * self.gain.value

        return x * self.gain.value, backward


class FromArrays(Layer):
    """Arrays as arguments: one that is learned, one that is a buffer."""

    buffers = ("mean",)

    def __init__(self, gain, mean, rng):
        self.gain, self.mean = Parameter(gain), mean
        self.offset = rng.normal()

    def forward(self, x, *, train=False):
        return (x - self.mean) * self.gain.value, lambda dy: dy * self.gain.value


class Block(Layer):
    """Layers among the arguments, under other names."""

    def __init__(self, body, *more, act=None):
        self.chain, self.last = Sequential(body, *more), act or Tanh()

    def forward(self, x, *, train=False):
        y, first = self.chain.forward(x, train=train)
        y, second = self.last.forward(y, train=train)
        return y, lambda dy: first(second(dy))


class Duck:
    def __init__(self, power):
        self.power = power

    def forward(self, x, *, train=False):
        y = x**self.power
        return y, lambda dy: dy * self.power * x ** (self.power - 1)

    def __repr__(self):
        return f"Duck({self.power})"


class Configured(Layer):
    def __init__(self, table):
        self.n = len(table)

    def forward(self, x, *, train=False):
        return x * self.n, lambda dy: dy * self.n

    def config(self):
        return {"table": list(range(self.n))}


class Tempered(minidl.maps.RegularizedMap):
    """A map of one's own."""

    def __init__(self, temperature):
        self.temperature = temperature

    def project_rows(self, z):
        return minidl.softmax.project_rows(z / self.temperature)

    def vjp_rows(self, p, dp):
        return minidl.softmax.vjp_rows(p, dp) / self.temperature

    def omega(self, p, axis=-1):
        return self.temperature * minidl.softmax.omega(p, axis)

    def fenchel_young(self, z, labels):
        raise NotImplementedError


OWN = [Scale, FromArrays, Block, Duck, Configured, Tempered]


def own_model(seed=0):
    block = Block(Linear(4, 4), Scale(4, name="inner"), act=minidl.SiLU())
    arrays = FromArrays(np.arange(4.0, dtype="f"), np.ones(4, "f"), np.random.default_rng(1))
    return Sequential(Scale(4, 2.0), arrays, block, Duck(2), Configured({"a": 1, "b": 2}), minidl.Simplex(Tempered(0.5)), Linear(4, 2), rng=seed)  # fmt: skip


def test_own_layers_need_no_code_for_saving(tmp_path):
    model = own_model()
    model.theta[:] += np.random.default_rng(0).normal(size=model.theta.size)
    model[1].mean = np.full(4, 0.25, "f")
    back = there_and_back(tmp_path, model, layers=OWN)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("f")
    np.testing.assert_array_equal(back(x), model(x))
    assert (back[0].name, back[2].chain[1].name, type(back[2].last)) == ("scale", "inner", minidl.SiLU)  # fmt: skip
    again = there_and_back(tmp_path, back, layers=OWN)  # what was loaded can be saved
    np.testing.assert_array_equal(again(x), model(x))
    copied = there_and_back(tmp_path, model.copy(), layers=OWN)
    np.testing.assert_array_equal(copied(x), model(x))


def test_own_layers_by_registration(tmp_path, monkeypatch):
    monkeypatch.setattr("minidl.saving.describe._REGISTERED", {})
    model = Sequential(Scale(4), Linear(4, 2), rng=0)
    minidl.save(tmp_path / "m.npz", model)
    with pytest.raises(ValueError, match=r"m.npz: the layer class 'Scale' is not known; .*layers=\[Scale\]\), or register"):  # fmt: skip
        minidl.load(tmp_path / "m.npz")
    assert minidl.register_layer(Scale) is Scale
    assert isinstance(minidl.load(tmp_path / "m.npz")[0], Scale)


class Closed(Layer):
    """Its argument is a function, kept nowhere."""

    def __init__(self, function):
        self._function = function

    def forward(self, x, *, train=False):
        return x, lambda dy: dy


class Kept(Closed):
    def __init__(self, function):
        self.function = function


class NoRecord:
    def __init__(self, power):
        self.other = power

    def forward(self, x, *, train=False):
        return x, lambda dy: dy


class WrongConfig(Closed):
    def config(self):
        return {"function": self._function}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Closed(len), r"Closed: the argument 'function' is not known; keep it as an attribute .*, or define config\(\)"),
        (Kept(len), "Kept: the argument 'function' cannot be saved, since it is <built-in"),
        (NoRecord(2), "NoRecord: the argument 'power' is not known"),
        (WrongConfig(len), "WrongConfig: the argument 'function' cannot be saved, since it is <built-in"),
    ],
)  # fmt: skip
def test_a_layer_that_cannot_be_described_is_named(tmp_path, layer, message):
    model = Sequential(Linear(2, 2), layer, rng=0)
    with pytest.raises(TypeError, match=message):
        minidl.save(tmp_path / "m.npz", model)
    assert list(tmp_path.iterdir()) == []
    minidl.Checkpoint(tmp_path / "c.npz").save(model=model)  # only compared there
    minidl.Checkpoint(tmp_path / "c.npz").load(model=model)
    with pytest.raises(ValueError, match=r"c.npz: Sequential or a layer in it has an argument that cannot be saved"):  # fmt: skip
        minidl.load(tmp_path / "c.npz", layers=[type(layer)])


def test_a_class_with_the_name_of_another_is_refused(tmp_path):
    class Linear(Layer):
        def forward(self, x, *, train=False):
            return x, lambda dy: dy

    with pytest.raises(ValueError, match=r"test_models.*Linear: minidl has another class of this name"):  # fmt: skip
        minidl.save(tmp_path / "m.npz", Sequential(Linear()))


def test_a_class_that_has_changed_is_named(tmp_path):
    minidl.save(tmp_path / "m.npz", Sequential(Scale(4), rng=0))

    class Renamed(Layer):
        def __init__(self, width):
            pass

        def forward(self, x, *, train=False):
            return x, lambda dy: dy

    Renamed.__name__ = "Scale"
    with pytest.raises(ValueError, match=r"m.npz: the layer class 'Scale' has another constructor"):
        minidl.load(tmp_path / "m.npz", layers=[Renamed])


def edit(path, change):
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop("meta")))
    change(arrays, meta)
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: a.pop("model/0.bias"), r"expected 0.bias of shape \(2,\), got \(\)"),
        (lambda a, m: a.update({"model/0.bias": np.ones(3)}), r"expected 0.bias of shape \(2,\), got \(3,\)"),
        (lambda a, m: a.update({"model/2.bias": np.ones(3)}), "no parameter or buffer '2.bias'"),
        (lambda a, m: m.pop("architecture"), "cannot be read as a model"),
        (lambda a, m: m.update(dtype="float16"), "expected dtype float32 or float64, got 'float16'"),
        (lambda a, m: m.update(dtype="x"), "expected dtype float32 or float64, got 'x'"),
        (lambda a, m: m.update(architecture={"class": "relumax", "arguments": {"b": 2}}), "expected a model, got relumax"),
        (lambda a, m: m.update(architecture={"class": "Linear", "arguments": {"in_features": -1, "out_features": 2}}), "expected in_features"),
        (lambda a, m: m.update(architecture={"class": "os.system", "arguments": {}}), "'os.system' is not known"),
        (lambda a, m: m.update(architecture=[1]), r"expected a model, got \[1\]"),
        (lambda a, m: m.update(format=1), "expected format 2, got 1"),
        (lambda a, m: m.update(dtype="U100000000"), "expected dtype float32 or float64, got 'U100000000'"),
        (lambda a, m: a["model/0.bias"].fill(np.nan), r"expected finite parameters, got 0.bias\[0\] = nan"),
        (lambda a, m: a["model/0.weight"].fill(np.inf), r"expected finite parameters, got 0.weight\[0, 0\] = inf"),
        (lambda a, m: a.update({"model/0.bias": np.array([1, 1e300])}), r"expected 0.bias in the range of float32, got 0.bias\[1\] = 1e\+300"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_value_error(tmp_path, change, message):
    path = tmp_path / "m.npz"
    minidl.save(path, Sequential(Linear(3, 2), ReLU(), rng=0))
    edit(path, change)
    with pytest.raises(ValueError, match=f"m.npz: .*{message}"):
        minidl.load(path)


class Wide(Layer):
    """Its parameter is drawn, so the constructor allocates nothing."""

    def __init__(self, width):
        self.weight = Parameter.drawn((width, width), lambda rng: rng.normal(size=(width, width)))

    def forward(self, x, *, train=False):
        raise NotImplementedError


def bomb(name, times=1, **arguments):
    item = {"class": name, "arguments": arguments}
    return {"class": "Sequential", "arguments": {"layers": {"items": [item] * times, "kind": "tuple"}}}  # fmt: skip


@pytest.mark.parametrize(
    "described",
    [
        *(bomb("Linear", in_features=n, out_features=n) for n in (8000, 10**7, 10**400)),
        *(bomb(k, features=n) for k in ("LayerNorm", "BatchNorm") for n in (10**8, 10**400)),
        bomb("BatchNorm", 50, features=10**6),
        bomb("Residual", layers={"items": [bomb("BatchNorm", features=10**8)], "kind": "tuple"}),
        bomb("Wide", width=8000),
        bomb("Identity", 20_000),
        bomb("Linear", in_features={"array": ["a"], "dtype": "U100000000"}, out_features=2),
    ],
)
def test_nothing_is_allocated_for_sizes_that_the_arrays_do_not_have(tmp_path, described):
    path = tmp_path / "m.npz"
    minidl.save(path, Sequential(Linear(3, 2), rng=0))
    edit(path, lambda arrays, meta: meta.update(architecture=described))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"m.npz: \w"):
            minidl.load(path, layers=[Wide])
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_wide_layers_without_parameters_are_loaded(tmp_path):
    model = Sequential(*[Identity() for _ in range(500)], Linear(1, 3000, bias=False), rng=0)
    there_and_back(tmp_path, model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_not_saved(tmp_path, value):
    model = Sequential(Linear(3, 2), rng=0)
    model.theta[-1] = value
    with pytest.raises(ValueError, match=r"save: expected finite parameters, got 0.bias\[1\] = "):
        minidl.save(tmp_path / "m.npz", model)
    assert not list(tmp_path.iterdir())


def test_the_scale_of_pixels_is_saved_and_copied(tmp_path):
    model = Sequential(Linear(3, 2), rng=0)
    assert there_and_back(tmp_path, model).input_scale is None
    model.input_scale = 1 / 255
    assert there_and_back(tmp_path, model).input_scale == model.copy().input_scale == 1 / 255


def test_files_of_older_versions_are_refused(tmp_path):
    """They have ``trained_on`` in place of ``input_scale``."""
    minidl.save(tmp_path / "p.npz", minidl.Predictor(Sequential(Linear(3, 2), rng=0)))
    for change in (lambda a, m: m.pop("input_scale"), lambda a, m: m["predictor"].pop("input_scale")):  # fmt: skip
        edit(tmp_path / "p.npz", change)
        with pytest.raises(ValueError, match=r"p.npz: cannot be read as a model .*input_scale"):
            minidl.load(tmp_path / "p.npz")
        minidl.save(tmp_path / "p.npz", minidl.Predictor(Sequential(Linear(3, 2), rng=0)))


# Predictors: the steps before and after the model


class OwnFeature(Feature):
    """Subtracts the smallest value of each feature."""

    def __init__(self, factor):
        self.factor = factor

    def learn(self, train):
        self.least = train.x.min(axis=0)

    def apply(self, x):
        return self.factor * (x - self.least.astype(x.dtype))


def predictor():
    rng = np.random.default_rng(0)
    names = np.array(["ash", "birch", "oak"])
    y = rng.integers(3, size=90)
    x = 40 * rng.normal(size=(90, 6)) + 100 * y[:, None]
    data = minidl.Dataset.from_labels((x, names[y]))
    steps = [minidl.Standardize(), OwnFeature(0.5), minidl.PCA(4)]
    mapped = data
    for feature in steps:
        mapped = feature.fit_transform(mapped)
    model = Sequential(Linear(4, 8), minidl.BatchNorm(8), ReLU(), Linear(8, 3), rng=0, dtype="float64")  # fmt: skip
    loss = minidl.FenchelYoung(minidl.sparsemax)
    minidl.fit(model, mapped, loss, minidl.Adam(model, 1e-2), epochs=10, rng=0)
    return minidl.Predictor(model, steps, loss=loss, dataset=data), x, names[y]


def test_a_predictor_is_loaded_with_all_its_steps(tmp_path):
    made, x, labels = predictor()
    assert np.mean(made.predict(x) == labels) > 0.8
    minidl.save(tmp_path / "p.npz", made)
    back = minidl.load(tmp_path / "p.npz", layers=[OwnFeature])
    assert isinstance(back, minidl.Predictor)
    assert repr(back) == repr(made)
    np.testing.assert_array_equal(back.predict(x), made.predict(x))
    np.testing.assert_array_equal(back.probabilities(x), made.probabilities(x))
    assert back.input_scale == made.input_scale
    with pytest.raises(ValueError, match=r"p.npz: the layer class 'OwnFeature' is not known"):
        minidl.load(tmp_path / "p.npz")


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_kept(tmp_path, name):
    loss, model = LOSSES[name].loss, Sequential(Linear(3, 2), rng=0)
    minidl.save(tmp_path / "p.npz", minidl.Predictor(model, loss=loss))
    back = minidl.load(tmp_path / "p.npz").loss
    assert (type(back), repr(back)) == (type(loss), repr(loss))


def test_predictors_that_cannot_be_saved_or_built(tmp_path):
    model = Sequential(Linear(3, 2), rng=0)
    made = minidl.Predictor(model)
    made.class_names = np.array(["a", None], dtype=object)
    with pytest.raises(TypeError, match="expected class names of text or numbers"):
        minidl.save(tmp_path / "p.npz", made)
    with pytest.raises(TypeError, match="a Predictor or an estimator, got 3"):
        minidl.save(tmp_path / "p.npz", 3)
    made.class_names = None
    for change in (lambda s: s.pop("features"), lambda s: s.update(features=3), lambda s: s.update(input_scale=[3]), lambda s: s.update(loss={"class": "Huber", "arguments": {"delta": -1}}), *(lambda s, loss=loss: s.update(loss=loss) for loss in ("Huber", {"class": "Standardize", "arguments": {}}, {"class": "softmax"}, {"class": "Identity", "arguments": {}}))):  # fmt: skip
        minidl.save(tmp_path / "p.npz", made)
        edit(tmp_path / "p.npz", lambda arrays, meta, change=change: change(meta["predictor"]))
        with pytest.raises(ValueError, match=r"p.npz: \w"):
            minidl.load(tmp_path / "p.npz")


# Checkpoints


def test_a_checkpoint_gives_its_model(tmp_path):
    model = Sequential(Linear(3, 4), minidl.BatchNorm(4), ReLU(), Linear(4, 2), rng=0)
    optimizer = minidl.Adam(model)
    file = minidl.Checkpoint(tmp_path / "run.npz")
    file.save(model=model, optimizer=optimizer, history=minidl.History())
    np.testing.assert_equal(minidl.load(tmp_path / "run.npz").state_dict(), model.state_dict())


def net(act, **options):
    return Sequential(Linear(3, 4), act, Residual(Linear(4, 4), Tanh()), Linear(4, 2), rng=0, **options)  # fmt: skip


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (net(Tanh()), "model.1 was 'ReLU', now it is 'Tanh'"),
        (net(minidl.LeakyReLU(0.1)), "model.1 was 'ReLU', now it is 'LeakyReLU'"),
        (Sequential(*net(ReLU()).layers[:3], Linear(4, 2, bias=False, rng=0)), "model.3.bias was True, now it is False"),
        (Sequential(Linear(3, 4), ReLU(), Residual(Linear(4, 4), ReLU()), Linear(4, 2), rng=0), "model.2.1 was 'Tanh', now it is 'ReLU'"),
        (Sequential(*net(ReLU()).layers[:2], rng=0), "model.2 was 'Residual', now it is None"),
        (Linear(3, 2, rng=0), "model was 'Sequential', now it is 'Linear'"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path, other, message):
    file = minidl.Checkpoint(tmp_path / "run.npz")
    file.save(model=net(ReLU()))
    file.load(model=net(ReLU(), dtype="float64"))
    before = other.state_dict()
    with pytest.raises(ValueError, match=f"run.npz: holds another run: {message}"):
        file.load(model=other)
    np.testing.assert_equal(other.state_dict(), before)


def test_describe_and_build_work_for_features():
    feature = minidl.PCA(3)
    description = json.loads(json.dumps(describe(feature)))
    assert repr(build(description, [minidl.PCA])) == "PCA(3)"
    assert difference(description, describe(minidl.PCA(3))) is None
    pool = minidl.AveragePool(2, (4, 6))
    assert build(describe(pool), [minidl.AveragePool]).shape == (4, 6)


def test_an_npz_of_something_else_is_named_with_what_it_holds(tmp_path):
    np.savez(tmp_path / "data.npz", X_train=np.ones(3), y_train=np.ones(3))
    with pytest.raises(ValueError, match=r"data\.npz: expected a model or checkpoint, .*'X_train'"):
        minidl.load(tmp_path / "data.npz")
