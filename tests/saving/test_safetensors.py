"""safetensors files of a PyTorch state_dict, read and written without PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from minidl import Layer, LayerNorm, Linear, Parameter, ReLU, Residual, Sequential
from minidl.saving import safetensors as files


def network(rng, dtype="float32"):
    return Sequential(Linear(5, 3), ReLU(), LayerNorm(3), Residual(Linear(3, 3)), Linear(3, 2, bias=False), rng=rng, dtype=dtype)  # fmt: skip


def module():
    return nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(tmp_path, dtype):
    model, other = network(0, dtype), network(1, dtype)
    files.save(tmp_path / "a.safetensors", model)
    files.load(tmp_path / "a.safetensors", other)
    np.testing.assert_array_equal(model.theta, other.theta)
    content = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert list(content) == sorted(model.state_dict())
    assert content["0.weight"].shape == (3, 5)
    assert {str(t.dtype) for t in content.values()} == {f"torch.{dtype}"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_of_pytorch(tmp_path, dtype):
    theirs = module().to(getattr(torch, dtype))
    ours = Sequential(Linear(5, 3), ReLU(), Linear(3, 2), rng=0, dtype=dtype)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    files.load(tmp_path / "theirs.safetensors", ours)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(dtype)
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-6)
    ours.theta[:] *= 2
    files.save(tmp_path / "ours.safetensors", ours)
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_read_as_float32(tmp_path):
    state = module().bfloat16().state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    model = Sequential(Linear(5, 3), ReLU(), Linear(3, 2), rng=0)
    files.load(tmp_path / "a.safetensors", model)
    for name, value in files.torch_state(model).items():
        np.testing.assert_array_equal(value, state[name].float().numpy())


def test_half_precision_can_be_read(tmp_path):
    theirs = module().half()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    ours = Sequential(Linear(5, 3), ReLU(), Linear(3, 2), rng=0)
    files.load(tmp_path / "a.safetensors", ours)
    np.testing.assert_array_equal(ours[0].weight.value.T, theirs[0].weight.detach().float().numpy())


class Scaled(Linear):
    """A Linear with another forward pass; PyTorch stores its weight as that of nn.Linear."""

    def forward(self, x, *, train=False):
        return super().forward(2 * x, train=train)


class Mixing(Layer):
    """An own layer with matrices, one square, which PyTorch stores as they are."""

    def __init__(self, rng):
        self.table = Parameter(rng.normal(size=(3, 4)))
        self.weight = Parameter(rng.normal(size=(3, 3)))
        self.inner = Linear(3, 3, rng=0, dtype="float64")
        self.cube = Parameter(rng.normal(size=(2, 3, 4)))

    def forward(self, x, *, train=False):
        raise NotImplementedError


@pytest.mark.parametrize("make", [Linear, Scaled])
@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (1, 4), (4, 1)])
def test_the_weights_of_linear_and_its_subclasses_are_transposed(tmp_path, make, shape):
    model, twin = make(*shape, rng=0), make(*shape, rng=1)
    state = files.torch_state(model)
    np.testing.assert_array_equal(state["weight"], model.weight.value.T)
    np.testing.assert_array_equal(state["bias"], model.bias.value)
    nn.Linear(*shape).load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    files.load_torch_state(twin, state)
    np.testing.assert_array_equal(twin.theta, model.theta)
    files.save(tmp_path / "a.safetensors", model)
    files.load(tmp_path / "a.safetensors", Sequential(twin)[0])
    np.testing.assert_array_equal(twin.theta, model.theta)


def test_no_other_matrix_is_transposed(tmp_path):
    model, twin = (Mixing(np.random.default_rng(seed)) for seed in (0, 1))
    state = files.torch_state(model)
    assert files.transposed(model) == {"inner.weight"}
    for name, value in model.state_dict().items():
        expected = value.T if name == "inner.weight" else value
        np.testing.assert_array_equal(state[name], expected, err_msg=name)
    files.load_torch_state(twin, state)
    np.testing.assert_array_equal(twin.theta, model.theta)
    twin.theta[:] = 0
    files.save(tmp_path / "a.safetensors", model)
    files.load(tmp_path / "a.safetensors", twin)
    np.testing.assert_array_equal(twin.theta, model.theta)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", r"a.safetensors: cannot be read as a safetensors file .*Error while deserializing"),
        (b"\x10" + bytes(40), "Error while deserializing"),
        (module().to(torch.float8_e4m3fn).state_dict(), r"expected \d.\w+ of dtype BF16, F16, F32, F64, I32, I64, BOOL, got F8_E4M3"),
        ({k: v.int() for k, v in module().state_dict().items()}, r"expected \d.\w+ of float32, got int32"),
        ({k: v.bool() for k, v in module().state_dict().items()}, r"expected \d.\w+ of float32, got bool"),
        ({**module().state_dict(), "2.bias": torch.tensor([1, np.nan])}, r"expected finite parameters, got 2.bias\[1\] = nan"),
        ({**module().state_dict(), "2.bias": torch.tensor([1, 1e300]).double()}, r"expected finite parameters, got 2.bias\[1\] = inf"),
        ({**module().state_dict(), "2.bias": torch.tensor([1, 1e300], dtype=torch.float64)}, r"expected 2.bias in the range of float32, got 2.bias\[1\] = 1e\+300"),
        (nn.Sequential(nn.Linear(5, 3)).state_dict(), "the state has no value for '2.weight'"),
        ({**module().state_dict(), "2.wieght": torch.ones(2)}, "no parameter or buffer '2.wieght', did you mean '2.weight'?"),
        ({**module().state_dict(), "2.weight": torch.ones(3, 2)}, r"expected 2.weight of shape \(3, 2\), got \(2, 3\)"),
    ],
)  # fmt: skip
def test_errors_change_nothing(tmp_path, state, message):
    file = tmp_path / "a.safetensors"
    if isinstance(state, bytes):
        file.write_bytes(state)
    else:
        safetensors.torch.save_file(state, file)
    model = Sequential(Linear(5, 3), ReLU(), Linear(3, 2), rng=0)
    before = model.theta.copy()
    with pytest.raises(ValueError, match=message):
        files.load(file, model)
    np.testing.assert_array_equal(model.theta, before)


def test_torch_is_not_needed(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from minidl import Linear, safetensors\n"
        f"safetensors.save({str(tmp_path / 'a.safetensors')!r}, Linear(2, 3, rng=0))\n"
        "sys.modules['safetensors'] = None\n"
        "try:\n    safetensors.load('a', Linear(2, 3, rng=0))\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "safetensors is needed for this: pip install 'minidl[safetensors]'"
    )
    assert safetensors.torch.load_file(tmp_path / "a.safetensors")["weight"].shape == (3, 2)
