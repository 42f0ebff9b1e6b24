"""scikit-learn's own tests of its networks, readers of them, and each row of what differs."""

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs
from scipy import sparse
from sklearn.datasets import load_iris

import minidl
import minidl.sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

PAGE = Path(__file__).parents[2] / "docs" / "sklearn.md"
IRIS, SPECIES = load_iris(return_X_y=True)
TWO = SPECIES[:100]
SHORT = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0}


@pytest.mark.slow
def test_the_tests_of_scikit_learn_pass_with_only_the_import_changed(tmp_path):
    """All but those that read or set a private attribute of its networks."""
    source = Path(theirs.__file__).with_name("tests") / "test_mlp.py"
    if not source.exists():
        pytest.skip("this scikit-learn ships no tests")
    code = source.read_text(encoding="utf-8")
    changed = code.replace("from sklearn.neural_network import", "from minidl.sklearn import", 1)
    (tmp_path / "test_mlp.py").write_text(changed, encoding="utf-8")
    seed = "import pytest\n@pytest.fixture\ndef global_random_seed():\n    return 42\n"
    (tmp_path / "conftest.py").write_text(seed, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PAGE.parents[1])
    failed = {name.partition("[")[0] for name in re.findall(r"FAILED .*::(\w+\S*)", done.stdout)}
    private = {
        test.name
        for test in ast.parse(code).body
        if isinstance(test, ast.FunctionDef)
        and any(isinstance(n, ast.Attribute) and re.match("_[a-z]", n.attr) for n in ast.walk(test))
    }
    assert failed <= private, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 52 or "test_mlp_vs_poisson_glm_equivalent" not in code  # 59 tests since 1.7


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_settings_of_scikit_learn_have_its_defaults(name):
    want, got = (getattr(module, name)().get_params() for module in (theirs, ours))
    assert {key: got[key] for key in want} == want


@pytest.mark.parametrize("classes", [2, 3])
def test_readers_of_scikit_learns_networks_convert_ours(classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # emlearn writes its C there
    used = classes * 50
    model = ours.MLPClassifier((5,), max_iter=30, random_state=0, learning_rate_init=0.03)
    model.fit(IRIS[:used].astype(np.float32), SPECIES[:used])
    assert model._label_binarizer.y_type_ == ("binary" if classes == 2 else "multiclass")
    assert model.out_activation_ == ("logistic" if classes == 2 else "softmax")
    assert model.coefs_[-1].shape == (5, model.n_outputs_) == (5, 1 if classes == 2 else 3)
    assert model.t_ == used * model.n_iter_
    x = IRIS[:used].astype(np.float32)
    if "skl2onnx" in READERS:
        import onnxruntime
        from skl2onnx import to_onnx, update_registered_converter
        from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
        from skl2onnx.operator_converters import multilayer_perceptron as mlp

        update_registered_converter(
            ours.MLPClassifier, "MinidlClassifier", calculate_linear_classifier_output_shapes,
            mlp.convert_sklearn_mlp_classifier, options={"zipmap": [False], "nocl": [False]},
        )  # fmt: skip
        proto = to_onnx(model, x[:1], options={"zipmap": False})
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        label, p = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_array_equal(label, model.predict(x))
        np.testing.assert_allclose(p, model.predict_proba(x), rtol=1e-4, atol=1e-6)
    if "emlearn" in READERS:
        import emlearn

        converted = emlearn.convert(model, method="inline")  # compiles C
        np.testing.assert_array_equal(converted.predict(x), model.predict(x))


def installed(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


READERS = [name for name in ("skl2onnx", "emlearn") if installed(name)]


@pytest.mark.parametrize("name", ["skl2onnx", "emlearn"])
def test_readers_are_installed(name):
    if name not in READERS:
        pytest.skip(f"{name} is not installed")


# ---------------------------------------------------------------- each row of what differs

ROWS = {}


def row(name):
    return lambda check: ROWS.setdefault(name, check)


def both(name, **settings):
    """Return both estimators of a name."""
    return [getattr(module, name)(**{**SHORT, **settings}) for module in (theirs, ours)]


def from_the_same_weights(name, y, x=IRIS, **settings):
    """Return both, trained for some epochs from scikit-learn's first weights."""
    settings |= {"warm_start": True, "batch_size": len(x), "tol": 0}
    reference, model = (one.fit(x, y) for one in both(name, **{**settings, "max_iter": 1}))
    model.coefs_, model.intercepts_ = reference.coefs_, reference.intercepts_
    return [one.set_params(max_iter=5).fit(x, y) for one in (reference, model)]


@row("first arguments of `MLPRegressor`")
def _():
    assert ours.MLPRegressor((7,), "tanh").hidden_layer_sizes == (7,)
    assert theirs.MLPRegressor("squared_error", (7,)).hidden_layer_sizes == (7,)
    with pytest.raises(ValueError, match="expected hidden_layer_sizes to be a whole number"):
        ours.MLPRegressor("squared_error", (7,)).fit(IRIS, SPECIES)


@row('`solver="lbfgs"`')
def _():
    settings = {"solver": "lbfgs", "early_stopping": True, "max_iter": 40}
    reference, model = (one.fit(IRIS, SPECIES) for one in both("MLPClassifier", **settings))
    assert not hasattr(reference, "validation_scores_")
    assert len(model.validation_scores_) == len(model.loss_curve_) == model.n_iter_
    assert both("MLPRegressor", solver="lbfgs")[1].fit(IRIS.astype("f"), TWO[:1].repeat(150)).coefs_[0].dtype == float  # fmt: skip


@row("sparse rows")
def _():
    x = sparse.coo_array(IRIS)
    assert both("MLPClassifier")[1].fit(x, SPECIES).predict(x.tocsc()).shape == (150,)
    with pytest.raises(TypeError, match="standardize=True would make sparse rows dense"):
        ours.MLPClassifier(**SHORT, standardize=True).fit(x, SPECIES)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        ours.OnlineClassifier().fit(x, SPECIES)


@row("sparse labels")
def _():
    y = sparse.csr_matrix(np.eye(3, dtype=int)[SPECIES])
    reference, model = (one.fit(IRIS, y) for one in both("MLPClassifier"))
    assert sparse.issparse(reference.predict(IRIS))
    assert isinstance(model.predict(IRIS), np.ndarray)


@row("loss of several numbers")
def _():
    y = IRIS[:, :2]
    reference, model = from_the_same_weights("MLPRegressor", y, alpha=0, solver="sgd", momentum=0)
    np.testing.assert_allclose(reference.coefs_[0], model.coefs_[0], rtol=1e-9)
    np.testing.assert_allclose(2 * np.array(reference.loss_curve_[1:]), model.loss_curve_[1:])


@row("L2 penalty `alpha`")
def _():
    reference, model = from_the_same_weights("MLPClassifier", SPECIES, alpha=9.0, solver="sgd")
    np.testing.assert_allclose(reference.coefs_[0], model.coefs_[0], rtol=1e-9)
    assert reference.loss_curve_[1] > model.loss_curve_[1] + 0.01
    online = ours.OnlineClassifier(alpha=5.0, max_iter=2, random_state=0).fit(IRIS, SPECIES)
    free = ours.OnlineClassifier(max_iter=2, random_state=0).fit(IRIS, SPECIES)
    assert np.abs(online.intercepts_[0]).max() < np.abs(free.intercepts_[0]).max()


@row("rows of weight 0")
def _():
    weight = np.r_[np.ones(100), np.zeros(50)]
    for one, same in zip(both("MLPClassifier", batch_size=40), (False, True), strict=True):
        whole = one.fit(IRIS, np.minimum(SPECIES, 1), weight).coefs_[0].copy()
        assert np.array_equal(whole, one.fit(IRIS[:100], TWO).coefs_[0]) == same


@row("weights in batches")
def _():
    """Alone in its batch a weight has no effect there, and its full effect here."""
    models = both("MLPRegressor", solver="sgd", batch_size=1, alpha=0, max_iter=1)
    for one, moves in zip(models, (False, True), strict=True):
        found = [one.fit(IRIS, SPECIES, w).coefs_[0].copy() for w in (None, SPECIES + 1.0)]
        assert np.allclose(*found) != moves


@row("initial weights")
def _():
    for activation, bound in (("tanh", 6), ("logistic", 2)):
        models = both("MLPClassifier", activation=activation, learning_rate_init=1e-12, hidden_layer_sizes=(300,))  # fmt: skip
        reference, model = (np.abs(m.fit(IRIS, SPECIES).coefs_[0]).max() for m in models)
        assert reference == pytest.approx(np.sqrt(bound / 304), rel=0.02)
        assert model == pytest.approx(np.sqrt(6 / 304), rel=0.02)


@row("`random_state`")
def _():
    reference, model = both("MLPClassifier", random_state=np.random.default_rng(0))
    model.fit(IRIS, SPECIES)
    with pytest.raises(ValueError, match="random_state"):
        reference.fit(IRIS, SPECIES)


@row("Adam's `epsilon`")
def _():
    small, large = (
        from_the_same_weights("MLPClassifier", SPECIES, alpha=0, epsilon=eps)
        for eps in (1e-30, 0.1)
    )
    np.testing.assert_allclose(small[0].coefs_[0], small[1].coefs_[0], rtol=1e-8)
    assert not np.allclose(large[0].coefs_[0], large[1].coefs_[0], rtol=1e-8)


@row("momentum while the rate falls")
def _():
    common = {"solver": "sgd", "alpha": 0, "momentum": 0.9}
    for rate, same in (("constant", True), ("invscaling", False)):
        for nesterov in (True, False):
            pair = from_the_same_weights("MLPClassifier", SPECIES, **common, learning_rate=rate, nesterovs_momentum=nesterov)  # fmt: skip
            assert np.allclose(pair[0].coefs_[0], pair[1].coefs_[0], rtol=1e-8) == same


@row("validation part")
def _():
    few = ours.MLPRegressor(**SHORT, early_stopping=True).fit(IRIS[:9], IRIS[:9, 0])
    assert np.isfinite(few.validation_scores_).all()  # R2 of one row is not
    assert len(few._halves((IRIS[:9], IRIS[:9, 0], None), 0)[1][1]) == 2
    y = np.r_[np.zeros(80), np.ones(60), np.full(10, 2)].astype(int)
    model = both("MLPClassifier", early_stopping=True)[1].fit(IRIS, SPECIES)
    kept = model._halves((IRIS, y, None), 0)
    assert np.bincount(kept[1][1]).tolist() == [8, 6, 1]
    few = [0, 1, 2, 3, 4] * 3
    assert np.bincount(model._halves((IRIS[:15], np.array(few), None), 0)[1][1]).tolist() == [1] * 5
    with pytest.raises(ValueError, match=r"each needs 2 rows.*there is only 1 of \['c'\]"):
        model.fit(IRIS[:20], np.array(["a", "b"] * 9 + ["a", "c"]))


@row("`partial_fit` with early stopping")
def _():
    for one in both("MLPRegressor", early_stopping=True):
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            one.partial_fit(IRIS, SPECIES)
    one.partial_fit(IRIS, SPECIES, X_val=IRIS, y_val=SPECIES)


@row("a loss that is not finite")
def _():
    settings = {"solver": "sgd", "learning_rate_init": 1e200, "activation": "identity"}
    for one in both("MLPRegressor", **settings):
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
            one.fit(IRIS, SPECIES)
    with pytest.raises(minidl.NonFiniteLossError, match="epoch 2, step 0"):
        one.fit(IRIS, SPECIES)
    one.set_params(learning_rate_init=1, early_stopping=True, max_iter=20)
    with pytest.warns(UserWarning, match="the weights are those of epoch"):
        one.fit(IRIS, SPECIES)
    assert one.n_iter_ < 20
    assert np.isnan(one.validation_scores_[-1])
    assert np.isfinite(one.predict(IRIS)).all()


@row("`verbose`")
def _():
    import contextlib
    import io

    printed = []
    for one in both("MLPClassifier", verbose=True, early_stopping=True):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            one.fit(IRIS, SPECIES)
        printed.append(out.getvalue().splitlines())
    assert len(printed[0]) == 2 * len(printed[1]) == 8
    for line in (printed[0][0], printed[1][0]):
        assert re.match(r"Iteration 1, loss = \d\.\d{8}", line)
    assert re.search(r", valid_loss = \d\.\d{8}, valid_accuracy = \d\.\d{8}$", printed[1][0])


@row("`validation_scores_`")
def _():
    for loss, name in (("squared_error", "valid_r2"), ("quantile", "valid_loss")):
        model = both("MLPRegressor", early_stopping=True)[1].set_params(loss=loss)
        scores = model.fit(IRIS, SPECIES).validation_scores_
        assert scores == model.history_.column(name)[1:]


@row("`batch_size` beyond the data")
def _():
    with pytest.warns(UserWarning, match="batch_size"):
        both("MLPClassifier", batch_size=999)[0].fit(IRIS, SPECIES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        both("MLPClassifier", batch_size=999)[1].fit(IRIS, SPECIES)
    assert not any("batch_size" in str(w.message) for w in caught)


@row("the model")
def _():
    reference, model = (one.fit(IRIS, SPECIES) for one in both("MLPClassifier"))
    reference.coefs_.append(0)
    with pytest.raises(TypeError, match="the length of coefs_ is fixed"):
        model.coefs_.append(0)
    assert np.shares_memory(model.coefs_[0], model.model_.theta)
    with pytest.raises(ValueError, match="not fitted"):
        both("MLPClassifier")[1].coefs_ = []


@row("private attributes")
def _():
    for name in ("_optimizer", "_no_improvement_count", "_random_state"):
        assert hasattr(both("MLPClassifier")[0].fit(IRIS, SPECIES), name)
    assert not hasattr(both("MLPClassifier")[1].fit(IRIS, SPECIES), "_no_improvement_count")


@pytest.mark.parametrize("name", ROWS)
def test_what_differs(name):
    ROWS[name]()


def test_the_table_has_these_rows():
    table = PAGE.read_text(encoding="utf-8").partition("## What differs")[2].partition("\n\nOf ")[0]
    rows = [line.split(" | ")[0].strip("| ") for line in table.splitlines() if line[:2] == "| "]
    assert rows[2:] == list(ROWS)
