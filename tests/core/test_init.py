"""Initial values: their distributions, layers without inputs, errors."""

import math

import numpy as np
import pytest

from minidl import Linear, init

FAN_IN, FAN_OUT = 20, 300
UNIFORM = [
    (init.uniform_fan_in, (FAN_IN, FAN_OUT), 1 / math.sqrt(FAN_IN)),
    (init.uniform_fan_in, (FAN_OUT,), 1 / math.sqrt(FAN_IN)),
    (init.glorot, (FAN_IN, FAN_OUT), math.sqrt(6 / (FAN_IN + FAN_OUT))),
]
NORMAL = [
    (init.he, 0, math.sqrt(2 / FAN_IN)),
    (init.normal(), 0, 1),
    (init.normal(3, 0.5), 3, 0.5),
]


@pytest.mark.parametrize(("draw", "shape", "bound"), UNIFORM)
def test_uniform_values_fill_their_interval(draw, shape, bound):
    values = draw(np.random.default_rng(0), shape, FAN_IN, FAN_OUT)
    assert (values.shape, values.dtype) == (shape, np.float64)
    assert np.abs(values).max() <= bound
    tenths = np.histogram(values, 10, (-bound, bound))[0] / values.size
    assert (np.abs(tenths - 0.1) < 0.05).all()


@pytest.mark.parametrize(("draw", "mean", "std"), NORMAL)
def test_normal_values_have_their_mean_and_deviation(draw, mean, std):
    values = draw(np.random.default_rng(0), (FAN_IN, FAN_OUT), FAN_IN, FAN_OUT)
    assert values.mean() == pytest.approx(mean, abs=0.05 * std)
    assert values.std() == pytest.approx(std, rel=0.03)
    assert np.abs(values - mean).max() > 3 * std  # not uniform


@pytest.mark.parametrize("draw", [init.uniform_fan_in, init.zeros, init.he, init.glorot])
def test_a_layer_without_inputs_or_outputs(draw):
    rng = np.random.default_rng(0)
    assert draw(rng, (3,), 0, 3).shape == (3,)
    for shape in ((0, 3), (0, 0), (3, 0)):
        assert draw(rng, shape, *shape).shape == shape


def test_weights_and_biases_are_those_of_the_initialisers():
    layer = Linear(FAN_IN, FAN_OUT, weight_init=init.glorot, bias_init=init.normal(3, 0.5), rng=0)
    assert np.abs(layer.weight.value).max() <= np.float32(UNIFORM[2][2])
    assert layer.weight.value.std() > 0
    assert layer.bias.value.mean() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": -1e-9}, "^normal: expected std to be .*>= 0, got -1e-09$"),
        ({"std": math.nan}, "^normal: expected std to be .* got nan$"),
        ({"mean": math.inf}, "^normal: expected mean to be .* got inf$"),
    ],
)
def test_errors_name_the_initialiser(options, message):
    with pytest.raises(ValueError, match=message):
        init.normal(**options)
