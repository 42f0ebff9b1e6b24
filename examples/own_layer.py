"""Write a convolution by hand, check its backward pass, and train it as the first layer.

A layer is a class with a method ``forward``, which returns the output and a function that takes
the gradient of the loss with respect to the output, writes the gradients of the layer's
parameters, and returns the gradient with respect to the input.

Run it with ``python examples/own_layer.py``.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import minidl
from minidl.testing import assert_gradients
from minidl.typing import Array, Backward


class Conv2d(minidl.Layer):
    """Convolution of square grey images, without padding.

    ``x`` holds images of side s as rows, (n, s s); ``y`` holds c images of side s - k + 1 as rows.

    forward: ``y[n,c,i,j] = bias[c] + sum_ab weight[c,a,b] x[n,i+a,j+b]``

    backward: ``dbias[c] = sum_nij dy[n,c,i,j]``,
    ``dweight[c,a,b] = sum_nij dy[n,c,i,j] x[n,i+a,j+b]``,
    ``dx[n,i,j] = sum_cab weight[c,a,b] dy[n,c,i-a,j-b]``, where dy is 0 beyond its borders
    """

    def __init__(self, side: int, channels: int, k: int) -> None:
        shape = channels, k, k
        self.side, self.k = side, k
        self.weight = minidl.Parameter.drawn(shape, lambda rng: rng.normal(0, 1 / k, shape))
        self.bias = minidl.Parameter.drawn((channels,), lambda rng: np.zeros(channels))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        n, k, weight, bias = len(x), self.k, self.weight, self.bias
        patches = sliding_window_view(x.reshape(n, self.side, self.side), (k, k), axis=(1, 2))
        y = np.einsum("nijab,cab->ncij", patches, weight.value) + bias.value[:, None, None]

        def backward(dy: Array) -> Array:
            dy = dy.reshape(y.shape)
            bias.grad = dy.sum(axis=(0, 2, 3))
            weight.grad = np.einsum("ncij,nijab->cab", dy, patches)
            padded = np.pad(dy, [(0, 0), (0, 0), (k - 1, k - 1), (k - 1, k - 1)])
            dy_patches = sliding_window_view(padded, (k, k), axis=(2, 3))
            dx: Array = np.einsum("ncijab,cab->nij", dy_patches, weight.value[:, ::-1, ::-1])
            return dx.reshape(x.shape)

        return y.reshape(n, -1), backward


def bars(n: int, rng: np.random.Generator, side: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images of a bar somewhere; labels: horizontal, vertical, falling, rising."""
    x, y = rng.normal(0, 0.2, (n, side, side)), rng.integers(4, size=n)
    steps = np.arange(-2, 3)
    for image, label in zip(x, y, strict=True):
        down, right = ((0, 1), (1, 0), (1, 1), (-1, 1))[label]
        i, j = rng.integers(2, side - 2, 2)
        image[i + down * steps, j + right * steps] += 1
    return x, y


def main() -> None:
    rng = np.random.default_rng(0)
    layer = Conv2d(side=6, channels=3, k=3).initialize(rng=0, dtype="float64")
    print(assert_gradients(layer, rng.normal(size=(4, 36))))

    data, loss = minidl.Dataset(bars(1000, rng), bars(500, rng)), minidl.CrossEntropy()
    convolutional = minidl.Sequential(Conv2d(10, 8, 3), minidl.ReLU(), minidl.Linear(512, 4), rng=1)
    linear = minidl.Sequential(minidl.Linear(100, 4), rng=1)
    for name, model in (("convolutional", convolutional), ("linear", linear)):
        history = minidl.fit(model, data, loss, minidl.Adam(model, lr=1e-2), epochs=10, rng=2)
        print(f"{name}: validation accuracy {history[-1].valid_accuracy:.3f}")


if __name__ == "__main__":
    main()
