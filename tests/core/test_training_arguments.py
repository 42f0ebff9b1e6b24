"""Arguments that users get wrong: training works or gives one clear error."""

import threading
import warnings

import numpy as np
import pytest

import minidl
from minidl import Adam, Callback, CrossEntropy, Dataset, Dropout, Linear, ReLU, Sequential, fit


def examples(n=40, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 4)) + 2 * np.eye(3, 4)[y], y


@pytest.fixture
def data():
    return Dataset(examples(), examples(seed=1))


@pytest.fixture
def model():
    return Sequential(Linear(4, 8), ReLU(), Linear(8, 3), rng=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": CrossEntropy}, TypeError, r"fit: expected a loss as CrossEntropy\(\), got <class"),
        ({"optimizer": Adam}, TypeError, r"fit: expected an optimizer as Adam\(model\), got <class"),
        ({"dataset": examples()}, TypeError, r"fit: expected a Dataset, as Dataset\(\(x, y\)\), got a tuple"),
        ({"dataset": Dataset}, TypeError, "fit: expected a Dataset, .* got a type"),
        ({"model": Sequential}, TypeError, "fit: expected a model, got the class Sequential"),
        ({"epochs": 10**400}, ValueError, "fit: expected epochs to be at most 9223372036854775807, got one of 1329 bits"),
        ({"callbacks": [minidl.EarlyStopping]}, TypeError, r"fit: expected callbacks=\[EarlyStopping\(\)\], got \[<class"),
        ({"callbacks": minidl.EarlyStopping()}, TypeError, r"fit: expected callbacks=\[EarlyStopping\(\)\], got EarlyStopping"),
        ({"rng": None}, TypeError, "rng: expected a seed"),
        ({"epochs": 1.5}, ValueError, "fit: expected epochs to be a whole number >= 0, got 1.5"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(data, model, change, error, message):
    arguments = {"model": model, "dataset": data, "loss": CrossEntropy(), "optimizer": Adam(model)}
    with pytest.raises(error, match=message):
        fit(**{**arguments, "epochs": 1, "rng": 0, **change})


def test_no_callbacks_is_none(data, model):
    assert len(fit(model, data, CrossEntropy(), Adam(model), epochs=1, rng=0, callbacks=None)) == 2


def test_a_seed_sequence_gives_another_order_in_each_epoch(data):
    def run(epochs, rng):
        orders = []

        class Watching(CrossEntropy):
            def __call__(self, logits, y):
                orders.append(y.tolist())
                return super().__call__(logits, y)

        model = Sequential(Linear(4, 3), rng=0)
        fit(model, Dataset(examples()), Watching(), Adam(model), epochs=epochs, rng=rng, batch_size=40, parts=("valid",))  # fmt: skip
        return orders[2:]  # after the evaluation before training, and a look at some examples

    one, two, three = run(3, np.random.SeedSequence(5))
    assert one != two != three != one
    assert run(3, np.random.SeedSequence(5)) == [one, two, three]
    children = np.random.SeedSequence(5).spawn(2)
    assert run(1, children[0]) != run(1, children[1])


def test_divergence_has_its_own_error_when_warnings_are_errors(data, model):
    """pytest turns warnings into errors here, as ``python -W error`` does."""
    optimizer = minidl.SGD(model, 1e30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(minidl.NonFiniteLossError, match="epoch 1, step"):
            fit(model, data, CrossEntropy(), optimizer, epochs=5, rng=0, batch_size=8)
        online = Sequential(Linear(4, 8), ReLU(), Linear(8, 3), rng=0)
        with pytest.raises(minidl.NonFiniteLossError, match="epoch 1, step"):
            minidl.fit_online(online, data, CrossEntropy(), lr=1e30, epochs=5, rng=0)


# ---------------------------------------------------------------- arrays


def masked(x):
    return np.ma.masked_greater(x, 1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x, y: Dataset((masked(x), y)), TypeError, "train: expected x without a mask, got a masked array"),
        (lambda x, y: Dataset((x, masked(y))), TypeError, "train: expected y without a mask"),
        (lambda x, y: Dataset((x + 1j, y)), TypeError, "expected x of real numbers, got dtype complex128"),
        (lambda x, y: Dataset((x.astype(object), y)), TypeError, "expected x of real numbers, got dtype object"),
        (lambda x, y: Dataset((x[0], y)), ValueError, r"expected x of shape \(n, features\), got \(4,\)"),
        (lambda x, y: Dataset((x[:, :0], y)), ValueError, r"expected x of shape \(n, features\), got \(\d+, 0\)"),
        (lambda x, y: Dataset((x, y[:, None, None])), ValueError, r"expected y of shape \(n,\) or \(n, d\)"),
        (lambda x, y: Dataset(x), TypeError, r"train: expected \(x, y\), \(x, y, weight\) or a Split"),
        (lambda x, y: Dataset((x, y), (np.zeros((3, 4), np.uint8), y[:3])), TypeError, "valid: expected x of floats and y of .* as in train, got x of pixels"),
        (lambda x, y: Dataset((x, y), (x, y.astype(float))), TypeError, "valid: expected x of floats and y of integers"),
        (lambda x, y: Dataset((x, y)).sample(trian=5), ValueError, "sample: expected part 'train' or 'valid' or 'test', got 'trian'"),
        (lambda x, y: Dataset((x, y), class_names=["a", "b"]), ValueError, "expected 3 class names"),
    ],
)  # fmt: skip
def test_a_wrong_array_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(*examples())


def test_pixels_that_were_not_divided_are_noticed():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9))
    y = np.arange(20) % 2
    with pytest.raises(ValueError, match=r"valid: expected x in 0..1 as in train, got whole numbers up to 25\d"):  # fmt: skip
        Dataset((pixels / 255, y), (pixels.astype(float), y))
    Dataset((pixels / 255, y), (pixels / 255 * 3, y))  # no pixels: other features may be larger


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "bool", "float16", ">f8"])
def test_other_real_numbers_become_floats(dtype):
    x = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    data = Dataset((x, [0, 1, 0, 1]))
    assert data.train.x.dtype == ("float32" if np.dtype(dtype).itemsize <= 2 else "float64")
    np.testing.assert_array_equal(data.train.x, x.astype(float))


# ---------------------------------------------------------------- layers


def test_dropout_of_integers_is_refused():
    with pytest.raises(TypeError, match=r"Dropout\(0.5\): expected x of floats, got int64"):
        Dropout(0.5, rng=0).forward(np.ones((2, 3), int), train=True)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (1, 3), ()])
def test_an_initial_value_of_another_shape_is_refused(shape):
    wrong = Linear(4, 3, weight_init=lambda rng, **_: np.zeros(shape))
    with pytest.raises(ValueError, match=r"expected values of shape \(4, 3\), got "):
        Sequential(wrong, rng=0)


# ---------------------------------------------------------------- threads


def test_a_model_that_is_being_trained_is_refused_elsewhere(data, model):
    errors, started, go_on = [], threading.Event(), threading.Event()

    class Wait(Callback):
        def on_epoch(self, run):
            started.set()
            go_on.wait(20)

    def train(callbacks):
        try:
            fit(model, data, CrossEntropy(), Adam(model), epochs=2, rng=0, callbacks=callbacks)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=train, args=([Wait()],))
    thread.start()
    started.wait(20)
    try:
        train([])
        copy = model.copy()  # a copy is free
        fit(copy, data, CrossEntropy(), Adam(copy), epochs=1, rng=0)
    finally:
        go_on.set()
        thread.join()
    assert len(errors) == 1
    assert "the model is being trained already" in errors[0]
    fit(model, data, CrossEntropy(), Adam(model), epochs=1, rng=0)  # free again


# ---------------------------------------------------------------- at the prompt


def test_short_representations(data, model):
    history = fit(model, data, CrossEntropy(), Adam(model), epochs=2, rng=0)
    assert repr(data.train) == "Split(40 examples, 4 features; x float64, y int64 (40,))"
    assert repr(data) == "Dataset(data: train 40, valid 40; 4 features, 3 classes)"
    assert repr(Dataset((np.eye(2), np.eye(2)))) == "Dataset(data: train 2; 2 features, y float64 (2,))"  # fmt: skip
    assert repr(history).startswith("History(epochs 0 to 2; best valid_accuracy ")
    assert repr(minidl.History()) == "History(empty)"
    assert repr(minidl.EarlyStopping(3)) == "EarlyStopping(3)"
    assert repr(minidl.Progress()) == "Progress()"
    assert repr(minidl.ReduceOnPlateau()) == "ReduceOnPlateau(0.1)"
    html = history._repr_html_()
    assert html.count("<tr>") == 4
    hostile = minidl.History.from_dict(
        {
            "monitor": "<img src=x onerror=1>",
            "mode": None,
            "records": [
                {"epoch": 0, "seconds": 0, "lr": 0, "train_loss": 1, "<img src=x onerror=1>": 2}
            ],
        }
    )
    assert "<img" not in hostile._repr_html_()
