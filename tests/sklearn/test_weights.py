"""Weights that users assign, beside scikit-learn's networks from the same weights; not fitted."""

import copy
import pickle
import re

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import minidl
from minidl.sklearn import MLPClassifier, MLPRegressor, OnlineClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.*max_iter:UserWarning", "ignore:.*Maximum iter")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 5))
Y = {
    "classes": (X[:, :3] + RANDOM.normal(size=(90, 3))).argmax(axis=1),
    "labels": (X[:, :4] + RANDOM.normal(size=(90, 4)) > 0).astype(int),
    "numbers": X[:, 0] + np.abs(X[:, 1]),
}
ESTIMATORS = [
    (MLPClassifier((4, 3), normalization="batch", max_iter=3, random_state=0), "classes"),
    (MLPClassifier((4,), dtype="float32", standardize=True, max_iter=3, random_state=0), "labels"),
    (MLPRegressor((), max_iter=3, random_state=0), "numbers"),
    (OnlineClassifier((4,), max_iter=3, random_state=0), "classes"),
]


def by_items(model, coefs, intercepts):
    for i, (w, b) in enumerate(zip(coefs, intercepts, strict=True)):
        model.coefs_[i] = w
        model.intercepts_[i - len(coefs)] = b.tolist()


def in_place(model, coefs, intercepts):
    for i, (w, b) in enumerate(zip(coefs, intercepts, strict=True)):
        model.coefs_[i][:] = w
        model.intercepts_[i] *= 0
        model.intercepts_[i] += b


def as_lists(model, coefs, intercepts):
    model.coefs_, model.intercepts_ = tuple(coefs), iter(intercepts)


def by_slices(model, coefs, intercepts):
    kept = model.coefs_, model.intercepts_  # as a loop that holds the lists
    kept[0][:] = coefs
    kept[1][::-1] = intercepts[::-1]


@pytest.mark.parametrize("assign", [by_items, in_place, as_lists, by_slices])
@pytest.mark.parametrize(("estimator", "kind"), ESTIMATORS, ids=lambda v: repr(v)[:40])
def test_all_that_comes_after_uses_the_assigned_weights(estimator, kind, assign, tmp_path):
    """Two models of other seeds are one from then on, in each way out and in further training."""
    onnx, y = pytest.importorskip("onnx"), Y[kind]
    model = clone(estimator).set_params(warm_start=True).fit(X, y)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
        # In another layout and dtype, and at once as copies are made: in loops over rounds.
        coefs = [np.asfortranarray(w + 0.3).astype(np.float64) for w in twin.coefs_]
        intercepts = [b - 0.2 for b in twin.intercepts_]
        before = twin.predictor_.outputs(X)
        assign(twin, coefs, intercepts)
        for have, want in zip(
            [*twin.coefs_, *twin.intercepts_], [*coefs, *intercepts], strict=True
        ):
            assert np.shares_memory(have, twin.model_.theta)
            assert have.dtype == twin.model_.dtype
            assert np.array_equal(have, want.astype(have.dtype))
        z = twin.predictor_.outputs(X)
        assert not np.allclose(z, before)
        assert np.array_equal(pickle.loads(pickle.dumps(twin)).predict(X), twin.predict(X))
        assert np.array_equal(copy.deepcopy(twin).coefs_[0], twin.coefs_[0])
        minidl.save(tmp_path / "model.npz", twin)
        assert np.array_equal(minidl.load(tmp_path / "model.npz").predictor_.outputs(X), z)
        stored = onnx.numpy_helper.to_array
        constants = [stored(one) for one in minidl.onnx.to_onnx(twin).graph.initializer]
        assert any(c.shape == w.shape and np.allclose(c, w) for c in constants for w in coefs)
    hand = copy.deepcopy(model)
    hand.model_.theta[:] = model.model_.theta
    for go_on in (hand, model):
        go_on.partial_fit(X, y)
        go_on.fit(X, y)
    assert np.array_equal(hand.model_.theta, model.model_.theta)
    assert not np.array_equal(model.coefs_[0], coefs[0])
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "adam", "alpha": 0.0, "epsilon": 1e-30, "batch_size": 30, "shuffle": False},
        {"solver": "adam", "alpha": 5.0, "epsilon": 1e-30},
        {"solver": "sgd", "alpha": 8.0, "nesterovs_momentum": False},
        {
            "solver": "sgd",
            "alpha": 0.0,
            "learning_rate_init": 0.3,
            "tol": 0.02,
            "n_iter_no_change": 2,
        },
    ],
    ids=str,
)
def test_from_the_same_weights_the_training_is_that_of_scikit_learn(kind, settings):
    """In the same batches: weights, loss_curve_ and n_iter_; the L2 penalty spares biases in both.

    The two add Adam's epsilon at different places, so it is next to nothing here.
    """
    name = "MLPRegressor" if kind == "numbers" else "MLPClassifier"
    options = {"tol": 0, "hidden_layer_sizes": (6, 4), "activation": "tanh", "batch_size": 90,
               "learning_rate_init": 0.02, "warm_start": True, "random_state": 0, **settings}  # fmt: skip
    reference, model = (
        getattr(module, name)(**options, max_iter=1).fit(X, Y[kind])
        for module in (theirs, minidl.sklearn)
    )
    model.coefs_, model.intercepts_ = reference.coefs_, reference.intercepts_
    for one in (reference, model):
        one.set_params(max_iter=60).fit(X, Y[kind])
        for _ in range(4 if not settings.get("tol") else 0):
            one.partial_fit(X, Y[kind])
    for have, want in zip(
        [*model.coefs_, *model.intercepts_],
        [*reference.coefs_, *reference.intercepts_],
        strict=True,
    ):
        np.testing.assert_allclose(have, want, rtol=1e-8, atol=1e-10)
    assert len(model.loss_curve_) == len(reference.loss_curve_)
    if not settings["alpha"]:  # scikit-learn's values contain the penalty
        np.testing.assert_allclose(model.loss_curve_[1:], reference.loss_curve_[1:], rtol=1e-9)
        assert settings.get("tol") is None or len(model.loss_curve_) < 60
    assert model.n_iter_ == (len(model.loss_curve_) - 1 if settings.get("tol") else 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [*Y, "two", "counts"])
def test_lbfgs_takes_the_steps_of_scikit_learn(kind, weighted):
    """From the same weights the two are equal to rounding: SciPy's L-BFGS on the same function."""
    y = {**Y, "two": X[:, 0] > 0, "counts": RANDOM.poisson(np.exp(X[:, 0]))}[kind]
    name = "MLPRegressor" if kind in ("numbers", "counts") else "MLPClassifier"
    options = {"solver": "lbfgs", "hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 0.1,
               "warm_start": True, "max_iter": 1, "random_state": 0, "tol": 1e-9}  # fmt: skip
    options |= {"loss": "poisson"} if kind == "counts" else {}
    weight = RANDOM.uniform(0.5, 2, len(X)) if weighted else None
    reference, model = (
        getattr(module, name)(**options).fit(X, y, weight) for module in (theirs, minidl.sklearn)
    )
    model.coefs_, model.intercepts_ = reference.coefs_, reference.intercepts_
    for one in (reference, model):
        one.set_params(max_iter=12).fit(X, y, weight)
    for have, want in zip(
        [*model.coefs_, *model.intercepts_],
        [*reference.coefs_, *reference.intercepts_],
        strict=True,
    ):
        np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-11)
    assert model.n_iter_ == reference.n_iter_ == 12
    assert len(model.loss_curve_) == 13
    assert not hasattr(model, "partial_fit")


def test_a_large_penalty_leaves_the_share_of_each_class():
    """scikit-learn spares intercepts: with weights of 0 they give the shares of the classes."""
    y = (np.random.default_rng(0).random(400) < 0.9).astype(int)
    x = np.random.default_rng(1).normal(size=(400, 3))
    for solver, alpha in (("adam", 1000.0), ("adamw", 1.0), ("sgd", 1000.0)):
        model = MLPClassifier((), solver=solver, alpha=alpha, max_iter=500, random_state=0,
                              learning_rate_init=0.02, batch_size=400).fit(x, y)  # fmt: skip
        assert model.predict_proba(x)[:, 1].mean() == pytest.approx(y.mean(), abs=0.03)


def fitted():
    return MLPClassifier((3,), max_iter=1, random_state=0).fit(X, Y["classes"])


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        ("coefs_[1]", np.zeros((4, 3)), "coefs_[1] of shape (3, 3), got (4, 3)"),
        ("coefs_[-2]", np.zeros(5), "coefs_[0] of shape (5, 3), got (5,)"),
        ("intercepts_[0]", 0.0, "intercepts_[0] of shape (3,), got ()"),
        ("coefs_[0]", np.full((5, 3), "a"), "to be real numbers, got dtype <U1"),
        ("coefs_[0]", np.full((5, 3), np.nan), "coefs_[0] to be finite"),
        ("coefs_[0]", np.zeros((5, 3), complex), "to be real numbers, got dtype complex128"),
        ("coefs_", [np.zeros((5, 3)), np.zeros((3, 2))], "of shape (3, 3), got (3, 2)"),
        ("coefs_", [np.zeros((5, 3))], "coefs_ to be 2 arrays, one for each layer, got 1"),
        ("intercepts_", None, "intercepts_ to be 2 arrays, one for each layer, got 1"),
        ("coefs_[:1]", [], "coefs_ to be 1 arrays, one for each layer, got 0"),
    ],
)  # fmt: skip
def test_other_shapes_are_refused_by_name(place, new, message):
    model = fitted()
    before = model.model_.theta.copy()
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        exec(f"model.{place} = new", {"model": model, "new": new})
    assert str(error.value).startswith("MLPClassifier: expected ")
    assert np.array_equal(model.model_.theta, before)


def test_the_lists_keep_their_length_and_copies_are_the_callers():
    model = fitted()
    for change in ("append(0)", "pop()", "clear()", "insert(0, 0)", "extend([])", "reverse()"):
        with pytest.raises(TypeError, match="MLPClassifier: the length of coefs_ is fixed"):
            eval(f"model.coefs_.{change}")
    with pytest.raises(TypeError, match="the length of intercepts_ is fixed"):
        del model.intercepts_[0]
    with pytest.raises(IndexError):
        model.coefs_[2] = np.zeros((3, 3))
    best = copy.deepcopy(model.coefs_)  # the best of a search, kept while training goes on
    kept = best[0].copy()
    model.coefs_[0] = np.zeros((5, 3))
    assert type(best) is type(pickle.loads(pickle.dumps(model.coefs_))) is list
    assert np.array_equal(best[0], kept)
    model.coefs_ = model.coefs_[1:1] + best  # lists add up as lists do
    assert np.array_equal(model.coefs_[0], kept)
    other = MLPClassifier((3,), max_iter=1, random_state=1).fit(X, Y["classes"])
    other.coefs_, other.intercepts_ = model.coefs_, model.intercepts_
    model.coefs_[0] *= 0  # an assignment copies
    assert np.array_equal(other.coefs_[0], kept)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, OnlineClassifier])
def test_before_fit_every_door_says_not_fitted(kind, tmp_path):
    failed = kind(hidden_layer_sizes=(0,))
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        failed.fit(X, Y["classes"])
    path = tmp_path / "model"
    for model in (kind(), failed):
        doors = {
            "predict": lambda m: m.predict(X),
            "score": lambda m: m.score(X, Y["classes"]),
            "onnx.export": lambda m: minidl.onnx.export(path, m),
            "save": lambda m: minidl.save(path, m),
            "coefs_ =": lambda m: setattr(m, "coefs_", []),
            "intercepts_[0]": lambda m: m.intercepts_[0],
        }
        if kind is not MLPRegressor:
            doors["predict_proba"] = lambda m: m.predict_proba(X)
        names = ("predictor_", "coefs_", "intercepts_", "n_layers_", "loss_curve_", "loss_",
                 "best_loss_", "validation_scores_", "best_validation_score_")  # fmt: skip
        doors |= {name: lambda m, name=name: getattr(m, name) for name in names}
        for door in doors.values():
            with pytest.raises(
                NotFittedError, match=f"This {kind.__name__} instance is not fitted"
            ):
                door(model)
        assert not any(hasattr(model, name) for name in names)
    assert not path.exists()


@pytest.mark.parametrize("names", [["b", "a", "rare"], [3, -7, 41], [2.0, 0.0, 9.0]], ids=str)
@pytest.mark.parametrize("kind", [MLPClassifier, OnlineClassifier])
def test_a_rare_class_is_named_as_the_user_wrote_it(kind, names):
    y = np.array(names)[[0, 1] * 44 + [2, 0]]
    model = kind(early_stopping=True, max_iter=2, random_state=0)
    with pytest.raises(ValueError, match=re.escape(f"{kind.__name__}: ") + ".*") as error:
        model.fit(X, y)
    assert str(error.value).endswith(f"there is only 1 of {[names[2]]}")
    y[-1] = names[2]
    assert set(model.fit(X, y).classes_) == set(names)
    with pytest.raises(ValueError, match=re.escape(str(names[2]).rstrip("0"))):
        kind().fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    with pytest.raises(ValueError, match=re.escape(str(names[2]).rstrip("0"))):
        kind().partial_fit(X, y, classes=names[:2])
