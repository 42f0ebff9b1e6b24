"""Write a convolution by hand, check its backward pass, and train it as the first layer."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import minidl
from minidl.checks import Array, Backward


class Conv2d(minidl.Layer):
    """Convolution of grey images (n, s, s) with c kernels (k, k), without padding.

    forward: ``y[n,c,i,j] = bias[c] + sum_ab weight[c,a,b] x[n,i+a,j+b]``, flattened to rows

    backward: ``dbias[c] = sum_nij dy[n,c,i,j]``,
    ``dweight[c,a,b] = sum_nij dy[n,c,i,j] x[n,i+a,j+b]``,
    ``dx[n,i,j] = sum_cab weight[c,a,b] dy[n,c,i-a,j-b]``, with dy = 0 outside its borders
    """

    def __init__(self, side: int, channels: int, k: int) -> None:
        self.side, self.k, shape = side, k, (channels, k, k)
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
            windows = sliding_window_view(padded, (k, k), axis=(2, 3))
            flipped = weight.value[:, ::-1, ::-1]
            return np.asarray(np.einsum("ncijab,cab->nij", windows, flipped)).reshape(x.shape)

        return y.reshape(n, -1), backward


def main() -> None:
    rng = np.random.default_rng(0)
    layer = Conv2d(side=6, channels=3, k=3).initialize(rng=0, dtype="float64")
    print(minidl.testing.checks.assert_gradients(layer, rng.normal(size=(4, 36))))

    # Noisy images, 10 x 10, of a bar: horizontal, vertical, falling or rising.
    x, y = rng.normal(0, 0.2, (1500, 10, 10)), rng.integers(4, size=1500)
    for image, label, (i, j) in zip(x, y, rng.integers(2, 8, (1500, 2)), strict=True):
        down, right = ((0, 1), (1, 0), (1, 1), (-1, 1))[label]
        image[i + down * np.arange(-2, 3), j + right * np.arange(-2, 3)] += 1
    data = minidl.Dataset((x[:1000], y[:1000]), (x[1000:], y[1000:]))
    model = minidl.Sequential(Conv2d(10, 8, 3), minidl.ReLU(), minidl.Linear(512, 4), rng=1)
    loss, optimizer = minidl.CrossEntropy(), minidl.Adam(model, lr=1e-2)
    history = minidl.fit(model, data, loss, optimizer, epochs=10, rng=2)
    print(f"validation accuracy {history[-1].valid_accuracy:.3f}")


if __name__ == "__main__":
    main()
