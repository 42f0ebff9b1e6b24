"""What users hand in, at every door: each kind of array meets each function that takes arrays.

One function, ``checks.as_array``, converts or refuses; the table of doors says where.
"""

import functools
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from homework.ridge import ridge
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import minidl
from minidl import Dataset, Linear, Predictor, ReLU, Sequential, Standardize, metrics
from minidl.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore:.*were not enough to converge")

K, N = 3, 6
LABELS = np.arange(N) % K
NUMBERS = np.linspace(-1, 1, N * K).reshape(N, K)
WEIGHTS = np.arange(1.0, N + 1)
SIGNS = np.where(np.arange(N) % 2, 1, -1)
LOSSES = {
    "CrossEntropy": (minidl.CrossEntropy(), K, LABELS),
    "FenchelYoung": (minidl.FenchelYoung(minidl.sparsemax), K, LABELS),
    "entmax15": (minidl.FenchelYoung(minidl.entmax15), K, np.eye(K)[LABELS]),
    "SmoothedNLL": (minidl.SmoothedNLL(minidl.relumax(2.0)), K, LABELS),
    "Perceptron": (minidl.Perceptron(), K, LABELS),
    "BinaryLogistic": (minidl.BinaryLogistic(), 1, SIGNS),
    "BinaryCrossEntropy": (minidl.BinaryCrossEntropy(), K, np.eye(K)[LABELS]),
    "SquaredError": (minidl.SquaredError(), K, NUMBERS),
    "AbsoluteError": (minidl.AbsoluteError(), K, NUMBERS),
    "Huber": (minidl.Huber(), K, NUMBERS),
    "Poisson": (minidl.Poisson(), K, np.abs(NUMBERS)),
    "Quantile": (minidl.Quantile((0.1, 0.5, 0.9)), K, NUMBERS[:, 0]),
}
METRICS = {
    "accuracy": (K, LABELS),
    "sign_accuracy": (1, SIGNS),
    "exact_match": (K, np.eye(K)[LABELS]),
    "mean_accuracy": (K, np.eye(K)[LABELS]),
    "r2": (K, NUMBERS),
    "exp_r2": (K, NUMBERS),
}
MAPS = [minidl.softmax, minidl.sparsemax, minidl.entmax15, minidl.relumax(2.0)]


def network(out=K):
    return Sequential(Linear(K, 4, rng=0), ReLU(), Linear(4, out, rng=1), dtype="float64")


def probabilities(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def predictor():
    data = Dataset((NUMBERS + np.eye(N, K), LABELS))
    return Predictor(network(), [Standardize().fit(data)], loss=minidl.CrossEntropy())


def estimator(kind, target, x=NUMBERS, **options):
    return kind((2,), max_iter=1, random_state=0, solver="sgd").fit(x, target, **options)


@functools.cache
def fitted(kind):
    return estimator(kind, LABELS)


def _float_doors():
    """Functions of an array (N, K) of float64 that is not converted to another dtype."""
    for f in MAPS:
        yield f"{f}", f
        yield f"{f}.vjp p", lambda z, f=f: f.vjp(z, NUMBERS)
        yield f"{f}.vjp dp", lambda z, f=f: f.vjp(f(NUMBERS), z)
        yield f"{f}.jvp", lambda z, f=f: f.jvp(f(NUMBERS), z)
        yield f"{f}.jacobian", f.jacobian
        if hasattr(f, "omega"):
            yield f"{f}.omega", lambda z, f=f: f.omega(z)
    for name, (loss, out, y) in LOSSES.items():
        yield f"{name} logits", lambda z, loss=loss, y=y: loss(z, y)
        yield f"{name} predict", loss.predict
        if name not in (
            "Perceptron",
            "SquaredError",
            "AbsoluteError",
            "Huber",
            "Poisson",
            "Quantile",
        ):
            yield f"{name} probabilities", loss.probabilities
        if hasattr(loss, "hessian_vector_product") and out == K:
            yield (
                f"{name} hessian",
                lambda z, loss=loss, y=y: loss.hessian_vector_product(z, y, NUMBERS),
            )
    for name, (_, y) in METRICS.items():
        yield f"{name} outputs", lambda z, n=name, y=y: getattr(metrics, n)(z, y)
    yield "threshold", minidl.maps.threshold
    for layer in (
        Linear(K, 2, rng=0, dtype="float64"), minidl.LayerNorm(K, dtype="float64"),
        minidl.BatchNorm(K, dtype="float64"), minidl.Softmax(), minidl.GELU(),
    ):  # fmt: skip
        yield f"{layer}", layer
        model = Sequential(layer)
        yield f"{layer}.forward", lambda z, model=model: model.forward(z, train=True)[0]
    standardize = Standardize().fit(Dataset((NUMBERS + np.eye(N, K), LABELS)))
    pca = minidl.PCA(2).fit(Dataset((NUMBERS + np.eye(N, K), LABELS)))
    yield "Standardize.apply", standardize.apply
    yield "PCA.apply", pca.apply
    yield "ridge x", lambda z: ridge(z, LABELS, 1.0)


def _number_doors():
    """Functions of an array (N, K) of any real numbers."""
    yield "Dataset x", lambda x: Dataset((x, LABELS)).train.x
    yield "Dataset y", lambda y: Dataset((NUMBERS, y)).train.y
    yield "Dataset valid", lambda x: Dataset((NUMBERS, LABELS), (x, LABELS)).valid.x
    yield "from_labels x", lambda x: Dataset.from_labels((x, LABELS)).train.x
    yield "outputs", lambda x: minidl.outputs(network(), x)
    yield "probabilities", lambda x: minidl.probabilities(network(), x)
    yield "evaluate x", lambda x: minidl.evaluate(network(), (x, LABELS), minidl.CrossEntropy())
    yield "evaluate y", lambda y: minidl.evaluate(network(), (NUMBERS, y), minidl.SquaredError())
    yield "Predictor.outputs", lambda x: predictor().outputs(x)
    yield "Predictor.probabilities", lambda x: predictor().probabilities(x)
    yield "Predictor.predict", lambda x: predictor().predict(x)
    yield "ridge y", lambda y: ridge(NUMBERS, y, 1.0)
    yield "SquaredError y", lambda y: minidl.SquaredError()(NUMBERS, y)
    yield "AbsoluteError y", lambda y: minidl.AbsoluteError()(NUMBERS, y)
    yield "Huber y", lambda y: minidl.Huber()(NUMBERS, y)
    yield "r2 y", lambda y: metrics.r2(NUMBERS, y)


def _estimator_doors():
    """Functions of an array (N, K), which scikit-learn checks."""
    yield "classifier X", lambda x: estimator(MLPClassifier, LABELS, x).coefs_[0]
    yield "classifier predict", lambda x: fitted(MLPClassifier).predict_proba(x)
    yield "regressor y", lambda y: estimator(MLPRegressor, y).predict(NUMBERS)
    yield "regressor predict", lambda x: fitted(MLPRegressor).predict(x)


FLOAT, NUMBER, ESTIMATOR = map(dict, (_float_doors(), _number_doors(), _estimator_doors()))
EVERY = FLOAT | NUMBER | ESTIMATOR
COLUMNS_OF = {f"{name} logits": out for name, (_, out, _) in LOSSES.items()}
COLUMNS_OF |= {f"{name} outputs": out for name, (out, _) in METRICS.items()}


def call(name, make, x=None):
    """Call a door with ``make(x)``, of as many columns as it takes."""
    x = probabilities(NUMBERS) if x is None else x
    return EVERY[name](make(x[:, : COLUMNS_OF.get(name, K)]))


def same(found, expected):
    found, expected = (v if isinstance(v, tuple) else (v,) for v in (found, expected))
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, dict):
            one, other = np.array(list(one.values())), np.array(list(other.values()))
        if isinstance(one, np.ndarray):
            assert type(one) is np.ndarray
            assert one.dtype.isnative
        # A transposed array is summed in another order.
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


CONVERTED = {
    "big-endian": lambda x: x.astype(">f8"),
    "tensor": torch.from_numpy,
    "list": np.ndarray.tolist,
    "frame": pd.DataFrame,
    "nullable": lambda x: pd.DataFrame(x).astype("Float64"),
}


@pytest.mark.parametrize("name", EVERY)
def test_other_arrays_of_the_same_numbers_give_the_same(name):
    expected = call(name, np.copy)
    for make in CONVERTED.values():
        same(call(name, make), expected)


def _masked(x):
    return np.ma.masked_greater(x, 0.5)


REFUSED = {
    "masked": (_masked, r"without a mask, got a masked array; write \w+\.filled\("),
    "nothing masked": (np.ma.masked_array, "without a mask"),
    "complex": (lambda x: x + 0j, "complex|Complex"),
    "strings": (lambda x: x.astype(str), "dtype|could not convert|dtype='numeric'|U"),
    "objects": (lambda x: np.array([[{}] * K] * N, object), "dtype object|float|argument must be"),
}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_plain_number_is_refused(name):
    for kind, (make, message) in REFUSED.items():
        if kind == "strings" and name in ESTIMATOR:
            continue  # scikit-learn reads numbers in strings
        with pytest.raises((TypeError, ValueError), match=message):
            call(name, make)


@pytest.mark.parametrize("name", FLOAT)
def test_half_and_extended_precision_are_refused_by_name(name):
    for dtype in ("float16", "longdouble"):
        message = rf"dtype (float32 or )?float64, got {np.dtype(dtype)}"
        with pytest.raises(TypeError, match=message):
            call(name, lambda x: x.astype(dtype))


OTHERS = {
    r"got csr_matrix \(a sparse matrix; write \w\.toarray\(\)\)": sparse.csr_matrix,
    r"Use tensor\.detach\(\)": lambda x: torch.tensor(x, requires_grad=True),
    "got Tensor .*BFloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", NUMBER)
def test_other_libraries_arrays_are_refused_with_what_to_write(name):
    for message, make in OTHERS.items():
        with pytest.raises(TypeError, match=message):
            call(name, make)


@pytest.mark.parametrize("name", [n for n in NUMBER if n[-2:] != " y"] + list(ESTIMATOR))
def test_rows_that_are_not_finite_are_refused(name):
    for dtype, bad in itertools.product(("float32", "float64"), (np.nan, np.inf, -np.inf)):
        x = NUMBERS.astype(dtype)
        x[4, 1] = bad
        message = (
            rf"finite features, got x\[4, 1\] = {bad}|contains (NaN|infinity)|Input \w+ contains"
        )
        with pytest.raises(ValueError, match=message):
            EVERY[name](x)


# ---------------------------------------------------------------- targets and weights


def _weight_doors():
    for name, (loss, out, y) in LOSSES.items():
        yield name, lambda w, loss=loss, out=out, y=y: loss(NUMBERS[:, :out].copy(), y, w)
    for name, (out, y) in METRICS.items():
        yield name, lambda w, n=name, out=out, y=y: getattr(metrics, n)(NUMBERS[:, :out], y, w)
    yield "Dataset", lambda w: Dataset((NUMBERS, LABELS, w)).train.weight
    yield (
        "evaluate",
        lambda w: minidl.evaluate(network(), (NUMBERS, LABELS, w), minidl.CrossEntropy()),
    )
    yield (
        "estimator",
        lambda w: estimator(MLPRegressor, LABELS, sample_weight=w).coefs_[0],
    )


def _target_doors():
    for name, (loss, out, y) in LOSSES.items():
        yield f"{name}", y, lambda t, loss=loss, out=out: loss(NUMBERS[:, :out].copy(), t)
    for name, (out, y) in METRICS.items():
        yield name, y, lambda t, n=name, out=out: getattr(metrics, n)(NUMBERS[:, :out], t)
    yield "Dataset labels", LABELS, lambda t: Dataset((NUMBERS, t)).train.y
    yield "from_labels", LABELS, lambda t: Dataset.from_labels((NUMBERS, t)).train.y
    yield "classifier y", LABELS, lambda t: estimator(MLPClassifier, t).predict(NUMBERS)
    yield "regressor labels", LABELS, lambda t: estimator(MLPRegressor, t).predict(NUMBERS)


WEIGHT, TARGET = dict(_weight_doors()), {name: (y, door) for name, y, door in _target_doors()}


@pytest.mark.parametrize("name", WEIGHT)
def test_weights(name):
    door, w = WEIGHT[name], WEIGHTS
    expected = door(w)
    for other in (w.astype(">f8"), w.astype(">i4"), w.tolist(), torch.tensor(w), pd.Series(w), pd.Series(w).convert_dtypes()):  # fmt: skip
        same(door(other), expected)
    with pytest.raises(TypeError, match=r"without a mask, got a masked array; write \w+\.filled"):
        door(np.ma.masked_equal(w, 2))


@pytest.mark.parametrize("name", TARGET)
def test_targets(name):
    y, door = TARGET[name]
    expected = door(y)
    others = [y.astype(y.dtype.newbyteorder(">")), y.tolist(), torch.tensor(y)]
    if y.ndim == 1:
        others += [pd.Series(y), pd.Series(y).convert_dtypes()]
    else:
        others += [pd.DataFrame(y), pd.DataFrame(y).convert_dtypes()]
    for other in others:
        same(door(other), expected)
    with pytest.raises(TypeError, match=r"without a mask, got a masked array; write y\.filled"):
        door(np.ma.masked_equal(y, y.ravel()[1]))


@pytest.mark.parametrize("kind", ["array", "list", "series", "nullable", "tensor"])
def test_booleans_are_the_numbers_0_and_1_of_a_regression(kind):
    y = NUMBERS[:, 0] > 0
    make = {
        "array": np.asarray, "list": np.ndarray.tolist, "series": pd.Series,
        "nullable": lambda y: pd.Series(y).astype("boolean"), "tensor": torch.tensor,
    }[kind]  # fmt: skip
    for loss in (minidl.SquaredError(), minidl.AbsoluteError(), minidl.Huber(), minidl.Quantile(0.5)):  # fmt: skip
        same(loss(NUMBERS[:, :1], make(y)), loss(NUMBERS[:, :1], y.astype(float)))
    same(metrics.r2(NUMBERS[:, :1], make(y)), metrics.r2(NUMBERS[:, :1], y.astype(float)))
    np.testing.assert_array_equal(Dataset((NUMBERS, make(y))).train.y, y.astype(int))
    expected = estimator(MLPRegressor, y.astype(float))
    found = estimator(MLPRegressor, make(y))
    np.testing.assert_array_equal(found.predict(NUMBERS), expected.predict(NUMBERS))


# ---------------------------------------------------------------- frames

COLUMNS = ["bool", "boolean", "int8", "uint8", "Int64", "Int8", "UInt16", "float32", "float64", "Float64", "Float32"]  # fmt: skip


@given(dtypes=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5), data=st.data())
def test_frames_of_any_numbers(dtypes, data):
    """Every mixture of columns gives the numbers of its columns, at each door alike."""
    values = data.draw(hnp.arrays(np.int64, (4, len(dtypes)), elements=st.integers(0, 1)))
    columns = {f"c{i}": pd.Series(values[:, i]).astype(d) for i, d in enumerate(dtypes)}
    frame = pd.DataFrame(columns)
    found = Dataset((frame, np.arange(4) % 2)).train
    assert found.x.dtype in (np.uint8, np.float32, np.float64)
    assert (found.x.dtype == np.uint8) <= (set(dtypes) <= {"uint8", "bool", "boolean"})
    np.testing.assert_array_equal(found.x, values)
    model = Sequential(Linear(len(dtypes), 2, rng=0))
    plain = values.astype(found.x.dtype)
    np.testing.assert_array_equal(minidl.outputs(model, frame), minidl.outputs(model, plain))


@pytest.mark.parametrize("door", [n for n in NUMBER if n[-2:] != " y"])
def test_a_missing_value_of_a_frame_is_named(door):
    for dtype in ("Int64", "Float64", "boolean"):
        frame = pd.DataFrame(np.eye(N, K), columns=["age", "size", "rate"])
        frame["size"] = frame["size"].astype(dtype)
        frame.loc[4, "size"] = pd.NA
        with pytest.raises(ValueError, match="column 'size' of x has a missing value in row 4"):
            NUMBER[door](frame)


def test_other_columns_and_missing_labels_are_named():
    frame = pd.DataFrame({"age": [1.0, 2], "city": ["a", "b"], "when": pd.to_datetime(["2020", "2021"])})  # fmt: skip
    with pytest.raises(TypeError, match="column 'city' of x of real numbers, got dtype"):
        Dataset((frame, [0, 1]))
    with pytest.raises(TypeError, match=r"column 'when' of x of real numbers, got dtype datetime"):
        Dataset((frame[["age", "when"]], [0, 1]))
    y = pd.Series([1, None], dtype="Int64")
    for make in (lambda: Dataset((np.eye(2), y)), lambda: Dataset.from_labels((np.eye(2), y))):
        with pytest.raises(ValueError, match="y has a missing value in row 1"):
            make()


def test_frames_of_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1, 2, 3], "b": [0.5, 1, 2], "c": [True, False, True]})
    expected = [[1, 0.5, 1], [2, 1, 0], [3, 2, 1]]
    np.testing.assert_array_equal(Dataset((frame, polars.Series([0, 1, 0]))).train.x, expected)
    missing = polars.DataFrame({"a": [1, None, 3]})
    with pytest.raises(ValueError, match=r"finite features, got x\[1, 0\] = nan"):
        Dataset((missing, [0, 1, 0]))


def test_rows_of_unequal_length_and_masked_rows_in_a_list():
    with pytest.raises(
        ValueError, match=r"data: train: expected x as an array, got .*inhomogeneous"
    ):
        Dataset(([[1.0], [1.0, 2.0]], [0, 1]))
    with pytest.raises(TypeError, match="without a mask"):
        Dataset(([np.ma.masked_equal([1.0, 2.0], 2), [1.0, 2.0]], [0, 1]))
    with pytest.raises(TypeError, match="Parameter: expected value without a mask"):
        minidl.Parameter(np.ma.masked_equal([1.0, 2.0], 2))
