"""Every calling style in one line: what is right passes, and a fault is named with its entry."""

import numpy as np
import pytest
import strangers as s

from minidl import Linear
from minidl.testing.cached import AdaptedLoss, Cached, Step
from minidl.testing.checks import check_function, check_layer, check_loss, check_pair

RNG = np.random.default_rng(0)
X, X3, X4 = (RNG.standard_normal(shape) for shape in ((6, 5), (2, 2, 7), (2, 2, 4, 4)))
W, V, B, IDS = X[:5, :3], X[:3, :2], X[0, :3], np.array([[0, 2], [2, 1]])
STATE = (
    X[:, :3],
    X[:, 2:5],
    X[:5, :3] @ np.ones((3, 12)) / 3,
    X[:3, :3] @ np.ones((3, 12)),
    np.zeros(12),
)
MASK = np.tril(np.ones((6, 6), bool))
ZEROS = X * (np.arange(6) > 0)[:, None]
KWARGS = {"params": "parameters", "grads": "gradients"}

# fmt: off
CASES = {
    # style 1: pairs with a cache
    "affine pair": (lambda f: check_pair(*s.affine_pair(f), (X3, RNG.standard_normal((14, 3)), B)), "w", (3, 1)),
    "relu pair": (lambda f: check_pair(*s.relu_pair(f), abs(X)), "x", (1, 2)),
    "batch norm pair": (lambda f: check_pair(*s.batchnorm_pair(f), (X, X[0], X[1]), fixed={"bn_param": {"eps": 1e-5}}), "gamma", (1,)),
    "embedding pair": (lambda f: check_pair(*s.embedding_pair(f), X, fixed={"ids": IDS}), "w", (2, 0)),
    "dropout pair": (lambda f: check_pair(*s.dropout_pair(f), X, fixed={"dropout_param": {"p": 0.5}}, numpy_seed=0), "x", None),
    "lstm step pair": (lambda f: check_pair(*s.lstm_pair(f), (X, *STATE)), "c", (0, 1)),
    "attention pair": (lambda f: check_pair(*s.attention_pair(f), (X, X[::-1], X[:, :4]), fixed={"mask": MASK}), "v", (1, 0)),
    # style 2: objects with attributes
    "affine": (lambda f: check_layer(Cached(s.Affine(f), W="dW", b="db"), X), "W", (4, 2)),
    "a number": (lambda f: check_layer(Cached(s.Scale(f), s="grads.s"), X), "s", ()),
    "convolution": (lambda f: check_layer(Cached(s.Conv1d(f), W="dW"), X3), "input", (0, 1, 2)),
    "pooling": (lambda f: check_layer(Cached(s.MaxPool(f)), X4), "input", None),
    "recurrent cell": (lambda f: check_layer(Cached(s.Cell(f), params={"U": "dU", "inner.W": "inner.dW", "inner.b": "inner.db"}), (X, X[:, :3])), "U", (0, 1)),
    # style 3: dictionaries, lists, other names, flags
    "dictionaries": (lambda f: check_layer(Cached(s.Dense(f), params="params", grads="grads"), X), "params.b", (1,)),
    "lists": (lambda f: check_layer(Cached(s.Listed(f), params="params", grads="grads"), X), "params.0", (0, 1)),
    "adding": (lambda f: check_layer(Cached(s.Adding(f), **KWARGS, before_forward="flush_gradients", adds=True), X), "parameters.W", (3, 0)),
    "norm, evaluation": (lambda f: check_layer(Cached(s.Norm(f), train="not frozen", buffers=["mean"]), X, train=False), "input", (2, 3)),
    # style 4: an optimizer's step inside backward
    "optimizer": (lambda f: check_layer(Cached(s.Passes(f), forward="forward_pass", backward="backward_pass", W=Step("W_opt"), buffers=["mask"]), X), "W", (2, 1)),
    "own step": (lambda f: check_layer(Cached(s.Stepping(f), W=Step(rate="lr")), X), "W", (1, 1)),
    "step after storing": (lambda f: check_layer(Cached(s.StoresAndSteps(f), W="dW", b="db", steps=True), X), "W", (4, 2)),
    # style 5: closures and functions
    "closure": (lambda f: check_layer(s.closure(f), X), "weight", (4,)),
    "begin_update": (lambda f: check_layer(Cached(s.Begins(f), forward="begin_update", backward=None, params=lambda m: m._values, grads=lambda m: m._gradients), X), "W", (0, 0)),
    "function at kinks": (lambda f: check_function(*s.hidden_pair(f), (ZEROS, X[:5, :4] @ np.ones((4, 8)), RNG.standard_normal((8, 2)))), "w1", (2, 0)),
    "two outputs": (lambda f: check_function(*s.polar_pair(f), (X[:, 0], X[:, 1])), "phi", (3,)),
    # style 6: losses
    "loss, a pair": (lambda f: check_loss(s.pair_loss(f), X, X[::-1]), "logits", (0, 1)),
    "loss, targets first": (lambda f: check_loss(AdaptedLoss(s.TrueFirst(f).loss, s.TrueFirst(f).gradient, targets_first=True), X, X[::-1]), "logits", (2, 0)),
    "loss, by example": (lambda f: check_loss(AdaptedLoss(s.ByExample(f), s.ByExample(f).grad, reduce=np.sum), X, X[::-1]), "logits", (1, 1)),
}
# fmt: on


def head(fault):
    loss = s.Head(fault)
    return check_loss(AdaptedLoss(loss.forward, loss.backward), X, np.arange(6) % 5)


CASES["loss, two methods"] = head, "logits", None


def test_there_are_enough_layers():
    assert len(CASES) >= 25


@pytest.mark.parametrize("name", CASES)
def test_right_code_passes(name):
    check, _, _ = CASES[name]
    report = check(1)
    report.raise_if_failed()
    assert not report.unchecked


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named(name):
    check, tensor, index = CASES[name]
    report = check(1.1)
    assert [t.name for t in report.tensors if t.failure] == [tensor], report
    if index is not None:
        assert report[tensor].worst.index == index, report
        assert report[tensor].worst.wrong == 1


# ---------------------------------------------------------------- lists, dictionaries, settings


class Attention:
    """y = tanh(q) * k + v, of one list of three; ``how`` is the form of the gradients."""

    def __init__(self, fault=1.0, how=list):
        self.fault, self.how = fault, how

    def forward(self, inputs):
        self.q, self.k, v = inputs
        return np.tanh(self.q) * self.k + v

    def backward(self, dy):
        t = np.tanh(self.q)
        return self.how([dy * self.k * (1 - t * t), self.fault * dy * t, dy])


@pytest.mark.parametrize("how", [list, tuple, np.stack])
def test_a_list_of_inputs(how):
    inputs = [X, X[::-1], X + 1]
    check_layer(Cached(Attention(1, how)), inputs, sweep=True).raise_if_failed()
    report = check_layer(Cached(Attention(1.1, how)), inputs)
    assert [t.name for t in report.tensors if t.failure] == ["input.1"]
    assert "x.0 (6, 5) float64, x.1 (6, 5)" in str(report).splitlines()[0]


def test_a_list_is_spread_over_a_function_that_needs_as_many_arguments():
    def f(x, w, scale=1):
        return scale * x * w

    right = check_function(f, lambda x, w, dy: np.stack([dy * w, dy * x]), [X, X + 1])
    assert right
    assert [t.name for t in right.tensors] == ["x", "w"]
    wrong = check_function(f, lambda x, w, dy: np.stack([dy * w, dy * w]), [X, X + 1])
    assert [t.name for t in wrong.tensors if t.failure] == ["w"]


def dense(x, params):
    return np.maximum(x @ params["W"] + params["b"], params["floor"]), (x, params)


@pytest.mark.parametrize("prefix", ["", "d"])
def test_a_dictionary_of_parameters_that_holds_settings(prefix):
    def backward(dy, cache, fault=1.0):
        x, params = cache
        da = dy * (x @ params["W"] + params["b"] > params["floor"])
        return da @ params["W"].T, {f"{prefix}W": x.T @ da, f"{prefix}b": fault * da.sum(axis=0)}

    params = {"W": W, "b": B, "floor": 0, "name": "dense", "ids": IDS}
    right = check_pair(dense, backward, (X, params))
    right.raise_if_failed()
    assert [t.name for t in right.tensors] == ["x", "params.W", "params.b"]
    alone = "params.floor, params.name, params.ids: no arrays of floats, left alone"
    assert right.notes == (alone,)
    wrong = check_pair(dense, lambda dy, cache: backward(dy, cache, 1.1), (X, params))
    assert [t.name for t in wrong.tensors if t.failure] == ["params.b"]


def test_settings_among_the_parameters_of_a_class():
    class Dense(s.Dense):
        def __init__(self, fault):
            super().__init__(fault)
            self.params |= {"stride": 1, "eps": 1e-5, "name": "dense"}

    for fault, wrong in ((1, []), (1.1, ["params.b"])):
        report = check_layer(Cached(Dense(fault), params="params", grads="grads"), X)
        assert [t.name for t in report.tensors if t.failure] == wrong
        assert {t.name for t in report.tensors} == {"input", "params.w", "params.b"}


def test_a_mode_set_by_hand_is_said():
    layer = s.Norm(1)
    layer.frozen = True  # inference
    adapted = Cached(layer, train="not frozen", buffers=["mean"])
    said = "Norm.frozen was True and is False in this check; as it was: train=False"
    assert check_layer(adapted, X).notes == (said,)
    assert check_layer(adapted, X, train=False).notes == ()


# ---------------------------------------------------------------- clipped gradients


@pytest.mark.parametrize("fault", [1, 1.1])
def test_a_small_cotangent_reaches_below_the_clipping(fault):
    def vjp(x, dy):
        return np.clip(fault * dy * np.cos(x), -1e-2, 1e-2)

    assert not check_function(np.sin, vjp, X)
    report = check_function(np.sin, vjp, X, cotangent=1e-3)
    assert bool(report) == (fault == 1)


def test_without_an_input():
    with pytest.raises(TypeError, match=r"Linear: expected forward to take no x and train="):
        check_layer(Linear(3, 2))


def test_arguments_in_a_report():
    class Bilinear:
        def __init__(self, inputs, out=2, bias=True):
            self.inputs, self.out, self.bias = inputs, out, bias
            self.W = np.ones((inputs, out))

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dy):
            self.dW = self.x.T @ dy
            return dy @ self.W.T

    shown = [str(check_layer(Cached(Bilinear(5, *more), W="dW"), X)) for more in ((3,), (2, False))]
    assert shown[0].startswith("Cached(Bilinear(5, 3)), x")
    assert shown[1].startswith("Cached(Bilinear(5, bias=False)), x")
