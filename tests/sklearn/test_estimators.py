"""The estimators beyond scikit-learn's checks: what is new, what fits into scikit-learn, bad input."""

import copy
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import minidl
from minidl.sklearn import MLPClassifier, MLPRegressor, OnlineClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SHORT = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.02, "max_iter": 15, "random_state": 0}
X, Y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
XR, YR = make_regression(120, 6, n_targets=2, random_state=0)
YR = YR / YR.std(axis=0)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16, y


# ---- what scikit-learn's networks lack


def test_class_weights_move_the_predictions():
    y = (Y == 0).astype(int)
    rate = [
        MLPClassifier(**SHORT, class_weight=w).fit(X, y).predict(X).mean()
        for w in (None, {1: 20.0}, {0: 20.0})
    ]
    assert rate[2] < rate[0] < rate[1]
    balanced = MLPClassifier(**SHORT, class_weight="balanced").fit(X, y)
    factors = len(y) / (2 * np.bincount(y))
    assert np.array_equal(
        balanced.predict_proba(X), MLPClassifier(**SHORT).fit(X, y, factors[y]).predict_proba(X)
    )


def test_class_weight_and_sample_weight_multiply():
    weight = np.arange(1.0, 121)
    short = {**SHORT, "standardize": True}
    one = MLPClassifier(**short, class_weight={0: 2.0, 2: 0.5}).fit(X, Y, weight)
    two = MLPClassifier(**short).fit(X, Y, weight * np.array([2.0, 1.0, 0.5])[Y])
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "sparsemax"},
        {"normalization": "layer"},
        {"standardize": True, "dtype": "float32"},
    ],
    ids=str,
)
def test_a_weight_of_two_is_an_example_twice(settings):
    """In one batch; in float32 to its rounding."""
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    kept = {**SHORT, "batch_size": 500, **settings}
    one = MLPClassifier(**kept).fit(X, Y, sample_weight=weight).predict_proba(X)
    two = MLPClassifier(**kept).fit(X.repeat(weight, axis=0), Y.repeat(weight)).predict_proba(X)
    np.testing.assert_allclose(one, two, rtol=0, atol=2e-5 if "dtype" in settings else 1e-9)


@pytest.mark.parametrize(("size", "rate"), [(1, 0.003), (3, 0.006), (50, 0.03)])
@pytest.mark.parametrize("online", [False, True])
def test_class_weights_have_their_full_effect_in_small_batches(size, rate, online):
    """The weighted loss of constant rows has its minimum at equal probabilities."""
    rows, y = np.ones((300, 1)), (np.arange(300) % 10 == 0).astype(int)
    common = {"class_weight": "balanced", "random_state": 0, "tol": 0, "n_iter_no_change": np.inf}
    if online:
        model = OnlineClassifier(**common, max_iter=30, learning_rate_init=0.003, block_size=size)
    else:
        model = MLPClassifier((), **common, solver="sgd", momentum=0, alpha=0, batch_size=size,
                              learning_rate_init=rate, max_iter=round(0.09 * size / rate))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert model.fit(rows, y).predict_proba(rows[:1])[0, 1] == pytest.approx(0.5, abs=0.03)


def test_partial_fit_takes_weights_as_they_are():
    """A weight of 2 is a step of twice the length, whatever the weights of the other rows."""
    steps = []
    for weight in (None, np.ones(20), np.full(20, 2.0)):
        model = MLPClassifier((), solver="sgd", momentum=0, alpha=0, learning_rate_init=1e-6,
                              batch_size=7, random_state=0)  # fmt: skip
        model.partial_fit(X[:20], Y[:20], np.zeros(20) + 1e-300, classes=[0, 1, 2])
        before = model.model_.theta.copy()
        model.partial_fit(X[:20], Y[:20], weight)
        steps.append(model.model_.theta - before)
        assert model.loss_curve_[1] == pytest.approx(model.loss_curve_[0], rel=1e-4)
    np.testing.assert_array_equal(steps[0], steps[1])
    np.testing.assert_allclose(steps[2], 2 * steps[0], rtol=1e-4)
    online = OnlineClassifier(class_weight={0: 2.0, 2: 0.0}, random_state=0)
    online.partial_fit(X, Y, classes=[0, 1, 2])
    assert online.loss_curve_[0] > 0


def test_sparse_probabilities_and_their_support():
    for loss in ("sparsemax", "entmax15"):
        model = MLPClassifier(**{**SHORT, "max_iter": 80}, loss=loss).fit(X, Y)
        p = model.predict_proba(X)
        assert (p == 0).any()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert np.array_equal(model.support(X), p > 0)
        assert np.isneginf(model.predict_log_proba(X)[p == 0]).all()
        assert np.array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))


def test_validation_data_of_ones_own():
    rows = slice(0, 80), slice(80, 120)
    model = MLPClassifier(**{**SHORT, "max_iter": 60}, early_stopping=True, monitor="valid_loss")
    model.fit(X[rows[0]], Y[rows[0]], X_val=X[rows[1]], y_val=Y[rows[1]])
    best = min(model.validation_scores_)
    assert model.best_validation_score_ == best == model.history_.best.valid_loss
    valid = X[rows[1]], Y[rows[1]]
    assert minidl.evaluate(model.model_, valid, minidl.CrossEntropy())["loss"] == pytest.approx(
        best, abs=1e-12
    )
    curves = MLPClassifier(**SHORT).fit(
        X, Y, X_val=X[:9], y_val=Y[:9], sample_weight_val=np.arange(9)
    )
    assert curves.n_iter_ == len(curves.validation_scores_) == 15
    assert curves.history_.monitor == "train_loss"
    assert MLPClassifier(**SHORT).fit(X, Y).validation_scores_ is None


def test_validation_rows_that_were_not_divided_as_the_training_rows_are_refused():
    train, valid = (np.random.default_rng(0).integers(0, 256, (n, 4)) for n in (40, 20))
    y = np.arange(40) % 2
    with pytest.raises(ValueError, match=r"expected x in 0\.\.1 as in train"):
        MLPClassifier(**SHORT).fit(train / 255, y, X_val=valid.astype(float), y_val=y[:20])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_best_weights_are_kept(solver):
    settings = {**SHORT, "max_iter": 100, "learning_rate_init": 0.3, "solver": solver}
    model = MLPClassifier(**settings, early_stopping=True, validation_fraction=0.3).fit(X, Y)
    scores = model.validation_scores_
    assert model.best_validation_score_ == max(scores) > scores[-1]
    assert model.n_iter_ < 100
    best = model.history_.best_state["0.weight"]
    assert np.array_equal(model.coefs_[0], best)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_early_stopping_stratifies_the_classes_that_weights_leave(absent):
    y, parts = np.r_[np.zeros(20, int), np.ones(72, int), np.full(8, 2)], []
    y = (y + absent) % 3  # the class of 20 rows has no weight

    def monitor(model, x, labels, sample_weight):
        parts.append(np.bincount(labels, minlength=3))
        return 0.0

    for seed in range(6):
        model = MLPClassifier((4,), early_stopping=True, random_state=seed, monitor=monitor)
        model.set_params(max_iter=2).fit(X[:100], y, (y != absent).astype(float))
    want = np.roll([0, 7, 1], absent)  # a tenth of 72 and of 8
    assert (np.array(parts) == want).all()
    rare = np.flatnonzero((y != (absent + 2) % 3) | (np.arange(100) == 99))  # one row of 8
    with pytest.raises(ValueError, match="only 1 of"):
        model.fit(X[rare], y[rare], (y[rare] != absent).astype(float))


@pytest.mark.parametrize("share", [0, 1.0, -0.1, np.nan])
@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor, OnlineClassifier])
def test_the_validation_part_is_neither_empty_nor_all(model, share):
    with pytest.raises(ValueError, match="validation_fraction"):
        model(early_stopping=True, validation_fraction=share, random_state=0).fit(X, Y)


def test_class_weights_are_monitored_by_the_loss():
    """The accuracy by weights is soon that of the rows of one class, and of equals the first."""
    model = MLPClassifier(**SHORT, early_stopping=True, class_weight={0: 1e3, 1: 1e-4, 2: 1e-4})
    model.set_params(max_iter=60).fit(X, Y)
    assert model.history_.monitor == "valid_loss"
    assert np.mean(model.predict(X) == 0) > 0.87


def test_early_stopping_in_partial_fit():
    model = MLPClassifier(**SHORT, early_stopping=True, n_iter_no_change=3)
    with pytest.raises(
        ValueError, match="partial_fit does not support early_stopping=True without validation"
    ):
        model.partial_fit(X[:80], Y[:80], classes=[0, 1, 2])
    for _ in range(200):
        model.partial_fit(X[:80], Y[:80], classes=[0, 1, 2], X_val=X[80:], y_val=Y[80:])
    epochs = len(model.validation_scores_)
    assert epochs < 200
    assert model.score(X[80:], Y[80:]) == max(model.validation_scores_)


def test_dropout_normalization_schedule_and_clipping():
    for settings in (
        {"dropout": 0.3},
        {"normalization": "batch"},
        {"schedule": "cosine"},
        {"schedule": minidl.OneCycle},
        {"clip_norm": 0.1},
    ):
        model = MLPClassifier(**SHORT, **settings).fit(X, Y)
        same = clone(model).fit(X, Y)
        plain = MLPClassifier(**SHORT).fit(X, Y)
        assert np.array_equal(model.predict_proba(X), same.predict_proba(X)), settings
        assert not np.array_equal(model.predict_proba(X), plain.predict_proba(X)), settings
    lr = MLPClassifier(**SHORT, schedule="cosine", batch_size=32).fit(X, Y).history_.column("lr")
    assert lr[1] > 0.019
    assert lr[-1] < 0.001


def test_no_batch_of_one_example_with_batch_norm():
    for batch_size in (7, 8, 17, 120, 119):
        model = MLPClassifier(
            **{**SHORT, "max_iter": 2}, normalization="batch", batch_size=batch_size
        )
        model.fit(np.tile(X, (2, 1))[: 120 + 1], np.tile(Y, 2)[:121])


def test_losses_of_the_regressor():
    x = np.ones((99, 1))
    y = np.r_[np.zeros(60), np.ones(30), np.full(9, 100.0)]
    expected = {"squared_error": y.mean(), "absolute_error": 0.0, "huber": None, "quantile": 1.0}
    for loss, value in expected.items():
        model = MLPRegressor(
            hidden_layer_sizes=(),
            loss=loss,
            quantile=0.8,
            delta=1.0,
            alpha=0,
            learning_rate_init=0.05,
            max_iter=900,
            tol=0,
            n_iter_no_change=np.inf,
            random_state=0,
        )
        constant = model.fit(x, y).predict(x[:1])[0]
        if value is None:  # sum of clip(z - y, -1, 1) is 0
            assert abs(np.clip(constant - y, -1, 1).sum()) < 0.5
        else:
            assert constant == pytest.approx(value, abs=0.1), loss


def test_several_outputs_and_labels():
    model = MLPRegressor(**{**SHORT, "max_iter": 200}).fit(XR, YR)
    assert model.predict(XR).shape == YR.shape
    assert model.score(XR, YR) > 0.9
    assert model.n_outputs_ == 2
    labels = (YR > 0).astype(int)
    several = MLPClassifier(**SHORT).partial_fit(XR, labels)
    assert several.predict(XR).shape == several.predict_proba(XR).shape == labels.shape
    assert several.score(XR, labels) == np.mean((several.predict(XR) == labels).all(axis=1))


@pytest.mark.parametrize(
    "labels", [["b", "a", "c"], [-3, 7, 1], [False, True, True], [2.0, 0.0, 1.0]], ids=str
)
def test_labels_of_any_kind(labels):
    y = np.array(labels)[Y]
    model = MLPClassifier(**SHORT).fit(X, y)
    assert np.array_equal(model.classes_, np.unique(y))
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.5
    if y.dtype.kind == "U":  # text in objects is text, as in scikit-learn
        twin = MLPClassifier(**SHORT).fit(X, y.astype(object))
        assert twin.predict(X).dtype == twin.classes_.dtype == y.dtype


def test_views_and_curves():
    model = MLPClassifier(**SHORT).fit(X, Y)
    assert [w.shape for w in model.coefs_] == [(6, 8), (8, 3)]
    assert all(np.shares_memory(w, model.model_.theta) for w in model.coefs_ + model.intercepts_)
    assert model.loss_ == model.loss_curve_[-1] == model.history_[-1].train_loss
    assert model.best_loss_ == min(model.loss_curve_)
    assert (model.n_iter_, model.n_layers_, model.n_outputs_) == (15, 3, 3)


def test_callbacks_and_verbose(capsys):
    calls = []

    class Count(minidl.Callback):
        def on_epoch(self, run):
            calls.append(run.history[-1].epoch)
            return len(calls) == 3

    model = MLPClassifier(**SHORT, callbacks=[Count()], verbose=True, early_stopping=True).fit(X, Y)
    assert calls == [1, 2, 3]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    last = model.history_[-1]
    losses = f"Iteration 3, loss = {model.loss_:.8f}, valid_loss = {last.valid_loss:.8f}"
    assert lines[2] == f"{losses}, valid_accuracy = {last.valid_accuracy:.8f}"


@pytest.mark.parametrize("seed", [0, 1, 2, 2**32 - 1])
def test_a_number_as_random_state_is_the_seed_of_a_random_state(seed):
    models = [
        MLPClassifier(**{**SHORT, "max_iter": 1, "random_state": state}).fit(X, Y)
        for state in (seed, np.random.RandomState(seed))
    ]
    np.testing.assert_array_equal(*(model.model_.theta for model in models))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_callback_sees_each_iteration_and_may_stop(solver, early_stopping):
    class Stop(minidl.Callback):
        def on_epoch(self, run):
            seen.append(run.history[-1].epoch)
            return len(seen) == 3

    seen = []
    settings = {**SHORT, "solver": solver, "early_stopping": early_stopping}
    model = MLPClassifier(**settings, callbacks=[Stop()]).fit(X, Y)
    assert seen == [1, 2, 3]
    assert model.n_iter_ == 3


def test_ctrl_c_keeps_the_epochs_so_far():
    class Interrupt(minidl.Callback):
        def on_epoch(self, run):
            if run.history[-1].epoch == 4:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        model = MLPClassifier(**SHORT, callbacks=[Interrupt()]).fit(X, Y)
    assert model.n_iter_ == 4
    assert model.predict(X).shape == (120,)


# ---- the rule that ends training, and reproducibility


def test_training_ends_by_the_rule_of_scikit_learn():
    """The same epochs as in scikit-learn, on a loss that is the same: linear, alpha 0."""
    from sklearn.neural_network import MLPRegressor as Theirs

    settings = {
        "hidden_layer_sizes": (),
        "alpha": 0,
        "learning_rate_init": 0.1,
        "batch_size": 120,
        "random_state": 0,
        "tol": 1e-3,
        "n_iter_no_change": 4,
        "max_iter": 500,
    }
    ours = MLPRegressor(**settings)
    theirs = Theirs(**settings)
    y = YR[:, 0]
    ours.fit(XR, y)
    theirs.fit(XR, y)
    curve, best, without = ours.loss_curve_, np.inf, 0
    for epoch, loss in enumerate(curve, 1):
        without = without + 1 if loss > best - 1e-3 else 0
        best = min(best, loss)
        assert (without > 4) == (epoch == len(curve))
    assert abs(ours.n_iter_ - theirs.n_iter_) < 30  # other initial weights


def test_adaptive_rate_falls_where_training_would_stop():
    model = MLPRegressor(
        **{**SHORT, "max_iter": 120},
        solver="sgd",
        learning_rate="adaptive",
        n_iter_no_change=2,
        tol=0.05,
    ).fit(XR, YR)
    rates = list(dict.fromkeys(model.history_.column("lr")))
    np.testing.assert_allclose(rates, 0.02 / 5.0 ** np.arange(len(rates)))
    assert rates[-1] <= 1e-6
    assert model.n_iter_ < 120


def test_inverse_scaling_is_that_of_scikit_learn():
    from sklearn.neural_network import MLPRegressor as Theirs

    settings = {
        **SHORT,
        "max_iter": 5,
        "solver": "sgd",
        "learning_rate": "invscaling",
        "power_t": 0.4,
        "batch_size": 50,
    }
    rates = MLPRegressor(**settings).fit(XR, YR).history_.column("lr")
    for epochs in (1, 4):
        theirs = Theirs(**{**settings, "max_iter": epochs}).fit(XR, YR)
        assert rates[epochs + 1] == pytest.approx(theirs._optimizer.learning_rate)


@pytest.mark.parametrize(
    "make", [lambda: 3, lambda: np.random.RandomState(3), lambda: np.random.default_rng(3)]
)
def test_the_same_random_state_gives_the_same_bits(make):
    settings = {**SHORT, "dropout": 0.2, "early_stopping": True, "batch_size": 16}
    del settings["random_state"]
    first, second = (MLPClassifier(**settings, random_state=make()).fit(X, Y) for _ in range(2))
    assert np.array_equal(first.model_.theta, second.model_.theta)
    other = MLPClassifier(**settings, random_state=4).fit(X, Y)
    assert not np.array_equal(first.model_.theta, other.model_.theta)


def test_numpy_global_state_is_the_default():
    settings = {**SHORT, "random_state": None}
    np.random.seed(5)  # noqa: NPY002
    first = MLPClassifier(**settings).fit(X, Y)
    np.random.seed(5)  # noqa: NPY002
    assert np.array_equal(first.model_.theta, MLPClassifier(**settings).fit(X, Y).model_.theta)


def test_warm_start_goes_on():
    model = MLPClassifier(**SHORT, warm_start=True).fit(X, Y)
    before = model.loss_
    model.fit(X, Y)
    assert model.n_iter_ == 15
    assert len(model.loss_curve_) == 30
    assert model.loss_ < before
    for other in (Y + 5, np.minimum(Y, 1)):
        with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same"):
            model.fit(X, other)


def test_partial_fit_is_fit_in_parts():
    """An epoch is an epoch: the same bits as one fit, since both draw the same orders."""
    whole = MLPClassifier(**SHORT, batch_size=32).fit(X, Y)
    parts = MLPClassifier(**SHORT, batch_size=32)
    for i in range(15):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
        if i == 7:
            parts = pickle.loads(pickle.dumps(parts))
    assert np.array_equal(whole.model_.theta, parts.model_.theta)
    assert whole.loss_curve_ == parts.loss_curve_


@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier(**SHORT, standardize=True),
        MLPRegressor(**SHORT),
        OnlineClassifier(loss="perceptron"),
    ],
    ids=repr,
)
def test_pickle_deepcopy_and_clone(model):
    y = YR if isinstance(model, MLPRegressor) else Y
    fitted = clone(model).fit(X, y)
    for twin in (
        pickle.loads(pickle.dumps(fitted)),
        copy.deepcopy(fitted),
        clone(fitted).set_params(random_state=0).fit(X, y),
    ):
        if fitted.random_state is not None:
            assert np.array_equal(twin.predict(X), fitted.predict(X))
    assert clone(fitted).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


# ---- inside scikit-learn


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_data_frames(kind):
    library = pytest.importorskip(kind)
    names = [f"f{i}" for i in range(6)]
    table = library.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    target = library.Series(np.array(["a", "b", "c"])[Y])
    model = MLPClassifier(**SHORT).fit(table, target, X_val=table, y_val=target)
    assert list(model.feature_names_in_) == names
    assert model.predict(table)[0] in "abc"
    assert np.array_equal(
        model.predict_proba(table), MLPClassifier(**SHORT).fit(X, Y).predict_proba(X)
    )
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[names[::-1]])


def test_weights_are_routed_through_a_pipeline_and_a_search():
    weight = np.where(Y == 0, 30.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        network = (
            MLPClassifier(**SHORT)
            .set_fit_request(sample_weight=True)
            .set_score_request(sample_weight=True)
        )
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        search = GridSearchCV(
            make_pipeline(scaler, network), {"mlpclassifier__alpha": [1e-4, 1e-2]}, cv=2
        )
        with_weight = search.fit(X, Y, sample_weight=weight).predict(X)
        plain = clone(search).fit(X, Y).predict(X)
    assert np.mean(with_weight == 0) > np.mean(plain == 0)


def test_searches_on_two_processes():
    grid = {"hidden_layer_sizes": [(4,), (8,)], "dropout": [0.0, 0.2]}
    for search in (GridSearchCV, HalvingGridSearchCV):
        options = {"random_state": 0} if search is HalvingGridSearchCV else {}
        found = [
            search(MLPClassifier(**SHORT), grid, cv=2, n_jobs=jobs, **options)
            .fit(X, Y)
            .cv_results_["mean_test_score"]
            for jobs in (1, 2)
        ]
        assert np.array_equal(*found)


def test_calibration_stacking_importance(digits):
    x, y = digits[0][:300], digits[1][:300]
    model = MLPClassifier((16,), learning_rate_init=0.02, max_iter=25, random_state=0)
    calibrated = CalibratedClassifierCV(model, cv=2).fit(x, y)
    assert calibrated.score(x, y) > 0.8
    np.testing.assert_allclose(calibrated.predict_proba(x).sum(axis=1), 1)
    stack = StackingClassifier(
        [("a", model), ("b", LogisticRegression())], cv=2, final_estimator=LogisticRegression()
    )
    assert stack.fit(x, y).score(x, y) > 0.8
    fitted = model.fit(X, Y)
    importance = permutation_importance(fitted, X, Y, n_repeats=3, random_state=0).importances_mean
    assert importance.shape == (6,)
    assert importance.max() > 0.05


def test_pandas_output_upstream():
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        model = make_pipeline(StandardScaler(), MLPClassifier(**SHORT)).fit(X, Y)
        assert model.score(X, Y) > 0.5
    assert model[-1].n_features_in_ == 6


def test_save_the_predictor(tmp_path):
    model = MLPClassifier(**SHORT, standardize=True).fit(X, np.array(["a", "b", "c"])[Y])
    predictor = model.predictor_
    assert np.array_equal(predictor.predict(X), model.predict(X))
    assert np.array_equal(predictor.probabilities(X), model.predict_proba(X))
    minidl.save(tmp_path / "model.npz", predictor)
    loaded = minidl.load(tmp_path / "model.npz")
    assert np.array_equal(loaded.predict(X), model.predict(X))
    assert np.array_equal(loaded.probabilities(X), model.predict_proba(X))


LABELS = np.array(["b", "a", "c"], dtype=object)[Y]


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (MLPClassifier(**SHORT, standardize=True), LABELS),
        (MLPClassifier(**SHORT, early_stopping=True, class_weight={"a": 1.0, "b": 3.0}), LABELS),
        (MLPClassifier(**SHORT), Y > 0),
        (MLPClassifier(**SHORT), (YR > 0).astype(int)),
        (MLPRegressor(**SHORT, standardize=True, normalization="batch"), YR * [1, 1000]),
        (MLPRegressor(**SHORT, loss="poisson"), np.abs(YR[:, 0])),
        (MLPRegressor(**SHORT, solver="lbfgs"), YR[:, 0]),
        (OnlineClassifier(max_iter=3, random_state=0), Y),
    ],
    ids=lambda v: repr(v).replace("\n", "")[:60],
)
@pytest.mark.parametrize("frame", [False, True])
def test_load_gives_an_estimator_back(model, y, frame, tmp_path):
    rows = pytest.importorskip("pandas").DataFrame(X, columns=list("abcdef")) if frame else X
    fitted, path = clone(model).fit(rows, y), tmp_path / "model.npz"
    minidl.save(path, fitted)
    loaded = minidl.load(path)
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    assert loaded.predict(rows).dtype == fitted.predict(rows).dtype
    for method in ("predict", "predict_proba"):
        if hasattr(model, method):
            assert np.array_equal(getattr(loaded, method)(rows), getattr(fitted, method)(rows))
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "n_iter_", "t_", "n_outputs_",
                 "out_activation_", "n_layers_", "n_features_in_"):  # fmt: skip
        assert getattr(loaded, name) == getattr(fitted, name), name
    minidl.save(path, fitted.predictor_)
    predicted = minidl.load(path).predict(X)  # the predictor has the names and scales too
    if y.dtype.kind == "f":
        np.testing.assert_allclose(predicted, fitted.predict(rows), rtol=1e-9, atol=1e-9)
    else:
        assert np.array_equal(predicted, fitted.predict(rows))
    if getattr(model, "solver", "") != "lbfgs" and not model.early_stopping:
        loaded.partial_fit(rows, y)
    assert loaded.fit(rows, y).n_iter_ == fitted.n_iter_


def test_a_setting_that_is_no_plain_data_is_left_out_of_a_file(tmp_path):
    model = MLPClassifier(**{**SHORT, "random_state": np.random.RandomState(0)}).fit(X, Y)
    with pytest.warns(UserWarning, match=r"save: the setting random_state=RandomState.* left out"):
        minidl.save(tmp_path / "model.npz", model)
    assert minidl.load(tmp_path / "model.npz").random_state is None


# ---- scorers, and targets of other scales


def test_any_scorer_ends_training_and_chooses_the_weights():
    from sklearn.metrics import get_scorer, make_scorer, mean_absolute_error

    own = make_scorer(mean_absolute_error, greater_is_better=False)
    rows, y, common = slice(80, None), LABELS, {**SHORT, "early_stopping": True, "max_iter": 40}
    cases = [
        (MLPClassifier, "f1_macro", y, None), (MLPClassifier, "neg_log_loss", y, np.arange(40.0)),
        (MLPClassifier, "roc_auc", Y > 1, None), (MLPRegressor, own, YR * [1, 1000], None),
        (MLPRegressor, lambda model, x, y: -np.abs(model.predict(x) - y).max(), YR, None),
        (OnlineClassifier, "balanced_accuracy", Y, None),
    ]  # fmt: skip
    for kind, monitor, target, weight in cases:
        settings = {k: v for k, v in common.items() if kind is not OnlineClassifier or k[0] != "h"}
        more = {"sample_weight_val": weight} if weight is not None else {}
        model = kind(**settings, monitor=monitor, standardize=True)
        model.fit(X[:80], target[:80], X_val=X[rows], y_val=target[rows], **more)
        scorer = get_scorer(monitor)
        options = {} if weight is None else {"sample_weight": weight}
        score = scorer(model, X[rows], target[rows], **options)
        assert score == pytest.approx(max(model.validation_scores_), rel=1e-9)
        assert model.best_validation_score_ == max(model.validation_scores_)
        name = monitor if isinstance(monitor, str) else getattr(monitor, "__name__", "score")
        assert model.history_.monitor == f"valid_{name}"
    with pytest.raises(ValueError, match="f1_makro"):
        MLPClassifier(**SHORT, monitor="f1_makro").fit(X, Y)


@pytest.mark.parametrize("settings", [{}, {"loss": "huber"}, {"solver": "lbfgs"}], ids=str)
def test_scaled_targets_reach_the_score_of_one_scale(settings):
    """Each output as if alone; further training, weights and ONNX are in the users' scale."""
    y = np.c_[YR[:, 0], 1000 * YR[:, 1] + 5000]
    model = MLPRegressor(**{**SHORT, "max_iter": 150}, standardize=True, **settings).fit(XR, y)
    assert min(1 - ((model.predict(XR) - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)) > 0.9
    same = MLPRegressor(**{**SHORT, "max_iter": 150}, standardize=True, **settings)
    scaled = same.fit(XR, y * 2.0**10).predict(XR)
    np.testing.assert_allclose(scaled, model.predict(XR) * 2.0**10, rtol=1e-6)
    np.testing.assert_allclose(model.predictor_.predict(XR), model.predict(XR), rtol=1e-9)


# ---- one example at a time


def test_online_classifier_takes_the_steps_of_fit_online():
    model = OnlineClassifier(
        learning_rate_init=0.05, alpha=0.01, max_iter=3, tol=0, random_state=0, dtype="float64"
    ).fit(X, Y)
    # The plain loop, on the same orders.
    twin = minidl.Sequential(
        minidl.Linear(6, 3, weight_init=minidl.init.zeros, bias_init=minidl.init.zeros),
        rng=0,
        dtype="float64",
    )
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    minidl.fit_online(
        twin,
        minidl.Dataset((X, Y)),
        minidl.CrossEntropy(),
        lr=0.05,
        weight_decay=0.01,
        epochs=3,
        rng=seed,
        block_size=1,
    )
    np.testing.assert_allclose(model.model_.theta, twin.theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"loss": "perceptron"}, {"hidden_layer_sizes": (16,), "learning_rate_init": 0.05}],
    ids=str,
)
def test_online_classifier_learns(digits, settings):
    x, y = digits
    model = OnlineClassifier(**settings, max_iter=8, random_state=0, dtype="float32").fit(
        x[:1000], y[:1000]
    )
    assert model.score(x[1000:], y[1000:]) > 0.85
    assert hasattr(model, "predict_proba") == (settings.get("loss") != "perceptron")
    assert model.decision_function(x[:5]).shape == (5, 10)
    stream = OnlineClassifier(**settings, random_state=0)
    for start in range(0, 1000, 250):
        stream.partial_fit(x[start : start + 250], y[start : start + 250], classes=np.arange(10))
    assert stream.score(x[1000:], y[1000:]) > 0.7


# ---- bad input

BAD_SETTINGS = [
    ({"activation": "rleu"}, "expected activation 'identity' or .* got 'rleu'"),
    (
        {"hidden_layer_sizes": (3, 0)},
        "expected hidden_layer_sizes to be a whole number >= 1, got 0",
    ),
    ({"solver": "bfgs"}, "expected solver 'adam' or .* got 'bfgs'"),
    ({"solver": "lbfgs", "dropout": 0.1}, "solver='lbfgs' needs a function: no dropout"),
    ({"solver": "lbfgs", "normalization": "batch"}, "solver='lbfgs' needs a function"),
    ({"solver": "lbfgs", "dtype": "float32"}, "solver='lbfgs' is in float64, got 'float32'"),
    ({"solver": "lbfgs", "max_fun": 0}, "expected max_fun to be a whole number >= 1"),
    ({"loss": "hinge"}, "expected loss 'log_loss' or .* got 'hinge'"),
    ({"learning_rate": "fast"}, "expected learning_rate 'constant' or 'invscaling' or 'adap"),
    ({"learning_rate_init": 0}, "expected learning_rate_init to be a finite number > 0"),
    ({"alpha": -1}, "expected alpha to be a finite number >= 0"),
    ({"batch_size": 0}, "expected batch_size to be a whole number >= 1"),
    ({"max_iter": 0}, "expected max_iter to be a whole number >= 1"),
    ({"dropout": 1.0}, "expected dropout to be a finite number >= 0 and < 1"),
    ({"normalization": "group"}, "expected normalization 'layer' or 'batch', got 'group'"),
    ({"schedule": "cosin"}, "expected schedule 'cosine' or 'one_cycle', got 'cosin'"),
    ({"monitor": "valid_loss"}, "no metric 'valid_loss' to monitor"),
    ({"dtype": "int32"}, "expected dtype float32 or float64, got 'int32'"),
    ({"tol": -1}, "expected tol to be a finite number >= 0"),
    ({"n_iter_no_change": 0}, "expected n_iter_no_change to be a whole number >= 1"),
    ({"class_weight": "even"}, "expected class_weight as a mapping or 'balanced', got 'even'"),
    ({"class_weight": {9: 1.0}}, "class_weight: no class 9"),
    ({"random_state": "seed"}, "cannot be used to seed"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**{**SHORT, **settings}).fit(X, Y)


NAN = np.where(np.arange(X.size).reshape(X.shape) == 9, np.nan, X)
BAD_DATA = {
    "NaN": ((NAN, Y), {}, "contains NaN"),
    "infinite": ((np.where(np.isnan(NAN), np.inf, X), Y), {}, "contains infinity"),
    "complex": ((X + 1j, Y), {}, "Complex data not supported"),
    "empty": ((X[:0], Y[:0]), {}, r"0 sample\(s\)"),
    "no feature": ((X[:, :0], Y), {}, r"0 feature\(s\)"),
    "rows": ((X, Y[:9]), {}, "inconsistent numbers of samples"),
    "no y": ((X, None), {}, "requires y to be passed, but the target y is None"),
    "numbers for classes": ((X, X[:, 0]), {}, "Unknown label type"),
    "NaN in y": ((X, np.where(Y == 1, np.nan, Y)), {}, "NaN"),
    "negative weight": (
        (X, Y),
        {"sample_weight": -np.ones(120)},
        "Negative values in data passed to `sample_weight`",
    ),
    "zero weights": ((X, Y), {"sample_weight": np.zeros(120)}, "at least one non-zero"),
    "weights of two axes": ((X, Y), {"sample_weight": np.ones((120, 2))}, "1D array"),
    "X_val alone": ((X, Y), {"X_val": X}, "X_val needs y_val"),
    "X_val of other features": (
        (X, Y),
        {"X_val": X[:, :3], "y_val": Y},
        "X has 3 features, but MLPClassifier is expecting 6",
    ),
    "y_val of other classes": ((X, Y), {"X_val": X, "y_val": Y + 1}, "`y` has classes not in"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    args, options, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SHORT).fit(*args, **options)


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_array", "coo_array"])
@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier(**SHORT, batch_size=32, dropout=0.2),
        MLPClassifier(**SHORT, early_stopping=True, dtype="float32"),
        MLPClassifier(**SHORT, solver="lbfgs"),
        MLPRegressor(**SHORT, normalization="layer"),
        MLPRegressor(**{**SHORT, "hidden_layer_sizes": ()}, shuffle=False),
    ],
    ids=lambda m: f"{m}".replace("\n", "")[:70],
)
def test_sparse_rows_are_never_dense(model, kind, monkeypatch):
    """The same model as from dense rows, in each way in; no matrix becomes an array."""
    from scipy import sparse

    x = np.random.default_rng(0).normal(size=(150, 40)) * (np.arange(6000).reshape(150, 40) % 7 < 1)
    y, rows = x[:, 0] + 1, getattr(sparse, kind)(x)
    y = y if isinstance(model, MLPRegressor) else np.where(y > 1, "a", np.where(y < 1, "b", "c"))
    dense, first = clone(model).fit(x, y), {"classes": list("abc")} if y.dtype.kind == "U" else {}
    for cls in (sparse.csr_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_array):
        for name in ("toarray", "todense"):
            monkeypatch.setattr(cls, name, lambda *args, **options: pytest.fail("dense"))
    found = clone(model).fit(rows, y, X_val=rows, y_val=y)
    if model.early_stopping:
        found = clone(model).fit(rows, y)
    atol = 1e-3 if model.dtype == "float32" or model.solver == "lbfgs" else 1e-9
    for one in (found, copy.deepcopy(found)):
        outputs = one._outputs(rows)
        np.testing.assert_allclose(outputs, dense._outputs(x), rtol=0, atol=atol)
        np.testing.assert_allclose(outputs, one._outputs(x), rtol=0, atol=1e-5)
        assert type(one.model_[0]) is minidl.Linear
    if model.solver != "lbfgs" and not model.early_stopping:
        parts = clone(model).partial_fit(rows, y, **first).partial_fit(x, y)
        twin = clone(model).partial_fit(x, y, **first).partial_fit(rows, y)
        np.testing.assert_allclose(parts._outputs(rows), twin._outputs(x), rtol=0, atol=1e-9)
    with pytest.raises(TypeError, match="standardize=True would make sparse rows dense"):
        clone(model).set_params(standardize=True).fit(rows, y)


def test_rows_that_need_no_conversion_are_refused_as_others():
    """Rows of floats are not handed to scikit-learn's checks; what these refuse still is."""
    model = MLPClassifier(**SHORT).fit(X, Y)
    same = [
        X.tolist(),
        X.astype(">f8"),
        X[:, ::-1][:, ::-1],
        np.asfortranarray(X),
        X.astype(object),
    ]
    assert all(np.array_equal(model.predict_proba(x), model.predict_proba(X)) for x in same)
    huge = np.full((2, 6), 1e308)  # finite, though its sum is not
    assert model.predict(huge).shape == (2,)
    for wrong, message in ((NAN, "contains NaN"), (X[0], "2D array"), (X[:0], "0 sample"),
                           (X[:, :3], "X has 3 features"), (X + 1j, "Complex data")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model.predict(wrong)
    with pytest.raises(TypeError, match=r"^MLPClassifier: expected X without a mask"):
        model.predict(np.ma.masked_array(X))


def test_one_class_only():
    for model in (MLPClassifier(**SHORT), OnlineClassifier()):
        model.fit(X, np.full(120, "a"))
        assert (model.predict(X) == "a").all()
        assert (model.predict_proba(X) == 1).all()


def test_bad_calls_of_partial_fit():
    model = MLPClassifier(**SHORT)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        model.partial_fit(X, Y)
    model.partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`.*\[3\]"):
        model.partial_fit(X, np.where(Y == 2, 3, Y))
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 6"):
        model.partial_fit(X[:, :3], Y)
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(**SHORT, class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="balanced"):
        OnlineClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(TypeError, match="classes"):
        MLPRegressor(**SHORT).partial_fit(XR, YR, classes=[0, 1])


def test_arguments_of_partial_fit_by_position():
    weight, curves = np.ones(120), []
    for model, y, classes in (
        (MLPClassifier(**SHORT), Y, ([0, 1, 2],)),
        (MLPRegressor(**SHORT), YR, ()),
    ):
        model.partial_fit(X, y, weight, *classes, X[:9], y[:9], weight[:9])
        curves.append(len(model.validation_scores_))
    assert curves == [1, 1]


def test_a_failed_fit_leaves_the_model_that_was_there():
    model = MLPClassifier(**SHORT).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="expected loss"):
        model.set_params(loss="hinge").fit(X, Y)
    assert np.array_equal(model.predict_proba(X), before)


def test_several_labels_need_log_loss_and_no_class_weights():
    labels = (YR > 0).astype(int)
    with pytest.raises(ValueError, match="several labels need loss='log_loss'"):
        MLPClassifier(**SHORT, loss="sparsemax").fit(XR, labels)
    with pytest.raises(ValueError, match="class_weight is not for several labels"):
        MLPClassifier(**SHORT, class_weight="balanced").fit(XR, labels)


def test_several_labels_are_not_for_one_example_at_a_time():
    with pytest.raises(ValueError, match="expected one label for each example, got several"):
        OnlineClassifier().fit(XR, (YR > 0).astype(int))


def test_a_warning_where_max_iter_is_too_small():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MLPClassifier(**SHORT).fit(X, Y)
        MLPClassifier(**{**SHORT, "max_iter": 300}, tol=0.1).fit(X, Y)
    assert [w.category for w in caught] == [ConvergenceWarning]
    assert "max_iter=15 epochs were not enough" in str(caught[0].message)


def test_columns_that_are_classes_each_are_refused():
    y = np.array([[0, 2], [1, 0], [2, 1], [0, 1]])
    with pytest.raises(ValueError, match="expected one label, or labels 0 and 1, in each column"):
        MLPClassifier().fit(np.eye(4), y)


def test_narrow_products_have_one_thread():
    """On two threads they take longer; wide ones have all."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    seen = []

    class Watch(minidl.Callback):
        def on_epoch(self, run):
            rows = threadpoolctl.threadpool_info()
            seen.append({row["num_threads"] for row in rows if row["user_api"] == "blas"})

    with threadpoolctl.threadpool_limits(2):
        for width in (64, 400):
            MLPClassifier((width, width), max_iter=1, callbacks=[Watch()]).fit(X, Y)
    assert seen == [{1}, {2}]
