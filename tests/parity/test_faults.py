"""Faults planted in our layers, losses and optimizers: parity fails and names quantity and step."""

import sys

import numpy as np
import pytest

from minidl import (
    SGD,
    Adam,
    AdamW,
    CrossEntropy,
    Dropout,
    LayerNorm,
    Linear,
    Optimizer,
    ReLU,
    Residual,
    Sigmoid,
    Tanh,
    TorchRandom,
    losses,
)
from minidl import maps as simplex
from minidl import optim as schedules
from minidl.online import blocks, tails
from minidl.online import tails as kernels
from minidl.parity import standard
from minidl.parity.__main__ import main


def failures(capsys, monkeypatch, steps, wanted):
    """Run ``python -m minidl.parity`` on some cases; return its lines about those that fail."""
    cases = [case for case in standard.standard_set() if wanted(case.name)]
    monkeypatch.setattr(standard, "standard_set", lambda: cases)
    monkeypatch.setattr(sys, "argv", ["minidl.parity", "--steps", str(steps)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    lines = [
        x for x in capsys.readouterr().out.splitlines() if " passes the tolerance at step " in x
    ]
    assert code == (1 if lines else 0)
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


# Each fault: what is replaced, by what.


def adam_eps_inside(self, theta, grad, *rest):
    m, v, s, g = rest
    grad = self._decay(theta, grad, g) if self.weight_decay else grad
    m *= self.betas[0]
    m += grad
    v *= self.betas[1]
    v += grad * grad
    theta -= self._lr * m / np.sqrt(v + self._eps)


def adam_bias_correction_off_by_one(self, lr):
    self.steps += 1
    prepare_adam(self, lr)
    self.steps -= 1


def adam_forgets_second_correction(self, lr):
    prepare_adam(self, lr)
    root = np.sqrt((1 - self.betas[1]) / (1 - self.betas[1] ** self.steps))
    self._lr *= root / np.sqrt(1 - self.betas[1])


def decoupled_for_l2(self, theta, grad, out):
    theta *= 1 - 1e-3 * self.weight_decay
    return grad


def l2_with_the_wrong_sign(self, theta, grad, *rest):
    update_sgd(self, theta, grad - 2 * self.weight_decay * theta, *rest)


def momentum_without_dampening(self, lr):
    self._lr, self._share = lr, 1.0


def dampening_from_the_first_step(self, lr):
    self._lr, self._share = lr, 1 - self.dampening


def nesterov_looks_back(self, theta, grad, *rest):
    if not self.nesterov:
        return update_sgd(self, theta, grad, *rest)
    b = rest[0]
    grad = grad + self.weight_decay * theta
    theta -= self._lr * (grad + self.momentum * b)  # with the buffer before its update
    b *= self.momentum
    b += grad
    return None


def dropout_without_scale(self, x, *, train=False):
    y, backward = forward_dropout(self, x, train=train)
    keep = 1 - self.p if train and 0 < self.p < 1 else 1
    return y * keep, lambda dy: backward(dy) * keep


def dropout_without_mask_backward(self, x, *, train=False):
    return forward_dropout(self, x, train=train)[0], lambda dy: dy


def linear_bias_gradient_mean(self, x, *, train=False):
    y, backward = forward_linear(self, x, train=train)

    def wrong(dy, input_grad=True):
        dx = backward(dy, input_grad=input_grad)
        if self.bias is not None:
            self.bias.grad /= len(dy)
        return dx

    return y, wrong


def relu_without_mask(self, x, *, train=False):
    return np.maximum(x, 0), lambda dy: dy


def tanh_derivative_of_the_input(self, x, *, train=False):
    return np.tanh(x), lambda dy: dy * (1 - x * x)


def sigmoid_derivative(self, x, *, train=False):
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: dy * y


def residual_without_skip_backward(self, x, *, train=False):
    fx, backward = self.inner.forward(x, train=train)
    return x + fx, backward


def layer_norm_unbiased(self, x, *, train=False):
    y, backward = forward_layer_norm(self, x, train=train)
    ratio = np.sqrt(1 - 1 / x.shape[1])
    return self.bias.value + (y - self.bias.value) * ratio, backward


def mean_for_sum(self, n, weight=None):
    return 1 / n


def sum_over_labels(self, logits):
    return 1.0


def quantile_of_the_other_side(self, logits, y):
    values, dlogits = quantile(self, -logits, -np.asarray(y))
    return values, -dlogits


def softmax_without_centring(self, p, dp):
    return p * dp


def step_decay_off_by_one(self, t):
    return self.lr * self.factor ** ((t + 1) // self.every)


def clip_without_the_minimum(self):
    clip_norm, self.clip_norm, grad = self.clip_norm, None, self.model.grad
    grad *= clip_norm / (np.linalg.norm(grad) + 1e-6) if clip_norm else 1
    step(self)
    self.clip_norm = clip_norm


def clip_to_a_largest_entry(self):
    clip_norm, self.clip_norm, grad = self.clip_norm, None, self.model.grad
    np.clip(grad, -(clip_norm or np.inf), clip_norm, out=grad)
    step(self)
    self.clip_norm = clip_norm


def one_cycle_off_by_one(self, t):
    return one_cycle(self, t + 1)


def warm_up_from_zero(self, t):
    return (self.lr(t) if callable(self.lr) else self.lr) * min(1.0, t / self.steps)


def threshold_by_half(weights, by):
    threshold(weights, by / 2)


def softmax_with_twice_the_rate(z, g, lr):
    return softmax_kernel(z, g, 2 * lr)


def uniform_rounded_twice(self, low=0.0, high=1.0, size=None):
    lo, width = np.float32(low), np.float32(high) - np.float32(low)
    share = ((self._raw(int(np.prod(size))) & 0xFFFFFF) * 2.0**-24).astype(np.float32)
    return (share * width + lo).astype(float).reshape(size)


threshold, softmax_kernel = blocks.soft_threshold, kernels.softmax
prepare_adam, update_sgd, step = Adam._prepare, SGD._update, Optimizer.step
one_cycle, quantile = schedules.OneCycle.__call__, losses.Quantile.per_example
forward_dropout, forward_linear, forward_layer_norm = (
    Dropout.forward,
    Linear.forward,
    LayerNorm.forward,
)

FAULTS = [
    # owner, attribute, fault, a case that fails, what is named first, at which step, cases that do not
    (Adam, "_update", adam_eps_inside, "depth 1, Adam(lr=0.001, eps=0.001)", "parameter of 2.bias", 1, "depth 1, SGD("),
    (Adam, "_prepare", adam_bias_correction_off_by_one, "depth 3, AdamW(lr=0.001)", "parameter of 6.bias", 1, "depth 1, SGD("),
    (Adam, "_prepare", adam_forgets_second_correction, "depth 9, Adam(lr=0.001)", "parameter of 18.bias", 1, "depth 1, SGD("),
    (Adam, "_decay", decoupled_for_l2, "depth 1, Adam(lr=0.001, weight_decay=0.01)", "exp_avg of 2.bias", 1, "depth 1, AdamW"),
    (AdamW, "_decay", Adam._decay, "depth 1, AdamW(lr=0.001)", "exp_avg of 2.bias", 1, "depth 1, Adam("),
    (SGD, "_update", l2_with_the_wrong_sign, "depth 1, SGD(lr=0.1, weight_decay=0.01)", "parameter of 2.bias", 1, "depth 1, Adam"),
    (SGD, "_prepare", momentum_without_dampening, "depth 3, SGD(lr=0.05, momentum=0.9, dampening=0.3)", "momentum_buffer of 6.bias", 2, "depth 1, SGD(lr=0.05, momentum=0.9, nesterov"),
    (SGD, "_prepare", dampening_from_the_first_step, "depth 3, SGD(lr=0.05, momentum=0.9, dampening=0.3)", "momentum_buffer of 6.bias", 1, "depth 1, SGD(lr=0.05, momentum=0.9, nesterov"),
    (SGD, "_update", nesterov_looks_back, "depth 1, SGD(lr=0.05, momentum=0.9, nesterov=True)", "parameter of 2.bias", 1, "depth 1, Adam"),
    (Dropout, "forward", dropout_without_scale, "Dropout", "logits", 1, "depth 3, SGD(lr=0.1)"),
    (Dropout, "forward", dropout_without_mask_backward, "Dropout", "gradient of 0.bias", 1, "depth 3, SGD(lr=0.1)"),
    (Linear, "forward", linear_bias_gradient_mean, "depth 1, SGD(lr=0.1)", "gradient of 2.bias", 1, "nothing"),
    (ReLU, "forward", relu_without_mask, "ReLU", "gradient of 0.bias", 1, "Tanh"),
    (Tanh, "forward", tanh_derivative_of_the_input, "depth 9, SGD(lr=0.1)", "gradient of 16.bias", 1, "Sigmoid"),
    (Sigmoid, "forward", sigmoid_derivative, "Sigmoid", "gradient of 0.bias", 1, "Tanh"),
    (Residual, "forward", residual_without_skip_backward, "Residual", "gradient of 0.bias", 1, "Tanh"),
    (LayerNorm, "forward", layer_norm_unbiased, "LayerNorm", "logits", 1, "Tanh"),
    (losses.ReducedLoss, "shares", mean_for_sum, "CrossEntropy, sum", "loss", 1, "depth 3, SGD(lr=0.1)"),
    (losses.BinaryCrossEntropy, "_per_label", sum_over_labels, "BinaryCrossEntropy", "loss", 1, "sum"),
    (losses.Quantile, "per_example", quantile_of_the_other_side, "Quantile, several", "loss", 1, "Absolute"),
    (type(simplex.softmax), "vjp_rows", softmax_without_centring, "Softmax", "gradient of 0.bias", 1, "Sparsemax"),
    (schedules.StepDecay, "__call__", step_decay_off_by_one, "depth 1, SGD(lr=StepDecay(lr=0.1, every=20, factor=0.5))", "parameter of 2.bias", 20, "depth 1, Adam("),
    (Optimizer, "step", clip_without_the_minimum, "depth 9, SGD(lr=0.1, clip_norm=100.0)", "gradient of 18.bias", 1, "depth 1, Adam"),
    (Optimizer, "step", clip_to_a_largest_entry, "depth 1, SGD(lr=0.1, clip_norm=0.1)", "gradient of 2.bias", 1, "depth 1, Adam("),
    (schedules.OneCycle, "__call__", one_cycle_off_by_one, "depth 1, AdamW(lr=OneCycle(lr=0.01, steps=100, pct_start=0.2, div_factor=25.0, final_div_factor=10000.0), clip_norm=0.05)", "parameter of 2.bias", 1, "depth 1, Adam("),
    (blocks, "soft_threshold", threshold_by_half, "fit_online, linear, l1", "loss", 1, "depth 3, SGD(lr=0.1)"),
    (tails.KERNELS, CrossEntropy, softmax_with_twice_the_rate, "fit_online, linear", "loss", 1, "depth 3, SGD(lr=0.1)"),
    (TorchRandom, "permutation", TorchRandom.randperm, "TorchRandom", "order", 1, "depth 3, SGD(lr=0.1)"),
    (TorchRandom, "uniform", uniform_rounded_twice, "TorchRandom", "parameter of 4.weight", 1, "fit_online"),
    (schedules.WarmUp, "__call__", warm_up_from_zero, "depth 1, SGD(lr=WarmUp(lr=0.05, steps=10), momentum=0.9)", "parameter of 2.bias", 1, "depth 1, AdamW"),
]  # fmt: skip


@pytest.mark.parametrize(("owner", "name", "fault", "case", "quantity", "step", "spared"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_a_planted_fault(owner, name, fault, case, quantity, step, spared, capsys, monkeypatch):
    plant = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    plant(owner, name, fault)
    found = failures(capsys, monkeypatch, max(step, 2), lambda x: x == case or spared in x)
    assert found[case].startswith(
        f"{quantity} passes the tolerance at step {step}: relative difference"
    )
    assert not [title for title in found if spared in title]
