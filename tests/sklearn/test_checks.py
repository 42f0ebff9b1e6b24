"""scikit-learn's own checks of estimators, all of them, over several settings."""

import warnings

import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import minidl.sklearn
from minidl.sklearn import MLPClassifier, MLPRegressor, OnlineClassifier

FAST = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 30}

# Dropout, batch normalization and a validation part that is drawn at random are left out: with
# them a weight of 2 is the same as an example twice in the mean alone. So is float32, where the
# two agree to 1e-5 and not to the 1e-7 of the check. With class_weight="balanced" partial_fit is
# refused, as scikit-learn's linear classifiers do. tests/sklearn/test_estimators.py has them.
ESTIMATORS = [
    MLPClassifier(**FAST),
    MLPClassifier(**FAST, loss="sparsemax", standardize=True, activation="silu", clip_norm=1.0),
    MLPClassifier(**FAST, loss="entmax15", normalization="layer"),
    MLPRegressor(**FAST),
    MLPRegressor(**FAST, loss="huber", solver="sgd", learning_rate="adaptive", activation="tanh"),
    MLPRegressor(**FAST, loss="quantile", solver="adamw", schedule="one_cycle", standardize=True),
    MLPClassifier(**FAST, solver="lbfgs"),
    MLPRegressor(**FAST, solver="lbfgs", normalization="layer"),
    OnlineClassifier(max_iter=20, learning_rate_init=0.1),
    OnlineClassifier(max_iter=20, loss="perceptron"),
    OnlineClassifier(hidden_layer_sizes=(8,), max_iter=20, learning_rate_init=0.1),
]


@parametrize_with_checks([ESTIMATORS[0], ESTIMATORS[3], ESTIMATORS[8]])
def test_scikit_learn(estimator, check):
    run(estimator, check)


@pytest.mark.slow
@parametrize_with_checks([one for i, one in enumerate(ESTIMATORS) if i not in (0, 3, 8)])
def test_scikit_learn_with_other_settings(estimator, check):
    run(estimator, check)


def run(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the settings are short on purpose
        check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_with_early_stopping_what_fails_fails_for_scikit_learn_too(name):
    failed = []
    for module in (sklearn.neural_network, minidl.sklearn):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = getattr(module, name)(**FAST, early_stopping=True)
            rows = estimator_checks.check_estimator(estimator, on_fail=None)
            failed.append({row["check_name"] for row in rows if row["status"] == "failed"})
            # Of its own network check_estimator checks this with lbfgs, which stops no earlier.
            weights = estimator_checks.check_sample_weight_equivalence_on_dense_data
            with pytest.raises((AssertionError, ValueError, TypeError)):  # 1.6 has no weights
                weights(name, estimator)
    # Networks of scikit-learn 1.6 take no weights, so they are not asked.
    twice = {f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")}
    assert failed[1] - failed[0] <= twice


@pytest.mark.parametrize(
    "estimator", [MLPClassifier(**FAST), MLPRegressor(**FAST), OnlineClassifier()], ids=repr
)
def test_column_names_of_data_frames(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator_checks.check_dataframe_column_names_consistency(
            type(estimator).__name__, estimator
        )
