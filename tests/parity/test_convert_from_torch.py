"""Modules as PyTorch's users write them, and their files, taken over with their weights."""

import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import minidl
from minidl import BatchNorm, Linear, ReLU, Sequential
from minidl.parity.convert import from_torch, to_torch
from minidl.saving import safetensors
from minidl.saving.describe import describe


class Block(nn.Sequential):
    """A subclass that only builds its modules, as torchvision's MLP."""

    def __init__(self, i, o):
        act = nn.ReLU(inplace=True)
        super().__init__(nn.Linear(i, o, bias=False), act, nn.BatchNorm1d(o, momentum=None), nn.GELU(), nn.Dropout(0.1), act)  # fmt: skip


def nested():
    act = nn.SiLU()  # a module without parameters may occur several times
    body = nn.Sequential(OrderedDict(first=Block(12, 16), again=act, second=Block(16, 8)))
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), body=body, act=act, head=nn.Linear(8, 3), last=act))  # fmt: skip


def of_options():
    # Options that are whole numbers; two layers of the same shape, which are not to be swapped.
    return nn.Sequential(nn.Linear(12, 12), nn.ELU(alpha=1), nn.Dropout(p=0), nn.Linear(12, 12), nn.Softplus(beta=1), nn.LayerNorm([12]), nn.LeakyReLU(0.2, True), nn.Softmax(1))  # fmt: skip


class Functional(nn.Module):
    """A module with a forward pass and names of its own."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.norm = nn.BatchNorm1d(10, momentum=None)

    def forward(self, x):
        return self.fc3(self.fc2(F.relu(self.norm(self.fc1(x)))))


def trained(module):
    """Weights and running statistics that no initialisation has."""
    torch.manual_seed(0)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(2 * torch.randn(20, 12) + 1)
        for p in module.parameters():
            p += 0.3 * torch.randn_like(p)
    return module.eval()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [nested, of_options, lambda: nn.Sequential(Block(12, 4)), lambda: Block(12, 4)])  # fmt: skip
def test_a_user_s_module(make, dtype):
    module = trained(make()).to(getattr(torch, dtype))
    model = from_torch(module, rng=0)
    x = np.random.default_rng(0).normal(size=(9, 12)).astype(dtype)
    expected = module(torch.from_numpy(x.copy())).detach().numpy()
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(model(x), expected, rtol=rtol, atol=rtol)
    assert model.dtype == dtype
    model.forward(x, train=True)  # Dropout has a stream


def test_a_module_that_occurs_twice_is_two_layers():
    kinds = [type(layer).__name__ for layer in from_torch(nested())]
    assert kinds == ["Flatten", "Sequential", "SiLU", "Linear", "SiLU"]
    block = ["Linear", "ReLU", "BatchNorm", "GELU", "Dropout", "ReLU"]
    assert [type(layer).__name__ for layer in from_torch(Block(2, 2))] == block


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_new_layer_there_and_back(dtype):
    model = Sequential(minidl.Flatten(), Linear(6, 6), BatchNorm(6, eps=1e-3), minidl.GELU(), minidl.GELU("tanh"), minidl.SiLU(), minidl.LeakyReLU(0.3), minidl.ELU(0.4), minidl.Softplus(), minidl.Identity(), BatchNorm(6, momentum=None), rng=0, dtype=dtype)  # fmt: skip
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(dtype)
    for _ in range(3):
        model.forward(x, train=True)
    module = to_torch(model).eval()
    assert list(module.state_dict()) == list(model.state_dict())
    y = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y, model(x), rtol=1e-4 if dtype == "float32" else 1e-12)
    back = from_torch(module)
    np.testing.assert_equal(back.state_dict(), model.state_dict())
    np.testing.assert_array_equal(back(x), model(x))
    assert describe(back) == describe(model)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.BatchNorm1d(3, affine=False), "only of BatchNorm1d(3, "),
        (nn.BatchNorm1d(3, track_running_stats=False), "track_running_stats=False), only of"),
        (nn.LayerNorm(3, bias=False), "bias=False), only of"),
        (nn.LayerNorm(3, elementwise_affine=False), "only of LayerNorm((3,), "),
        (nn.LayerNorm((2, 3)), "expected features to be a whole number"),
        (nn.Flatten(0), "only of Flatten(start_dim=1, end_dim=-1)"),
        (nn.Softplus(beta=2), "only of Softplus(beta=1.0, threshold=20.0)"),
        (nn.Softplus(threshold=1), "only of Softplus(beta=1.0, threshold=20.0)"),
        (nn.LeakyReLU(float("nan")), "expected slope to be"),
        (nn.Softmax(), "expected axis to be"),
    ],
)  # fmt: skip
def test_options_without_a_counterpart_are_refused(module, named):
    for given, position in ((module, ""), (nn.Sequential(nn.Sequential(module)), "module 0.0, ")):
        message = re.escape(f"from_torch: no counterpart of {position}{type(module).__name__}(")
        with pytest.raises(ValueError, match=f"{message}.*{re.escape(named)}"):
            from_torch(given)


class Gelu(nn.GELU):
    def forward(self, x):
        return -super().forward(x)


class Backwards(nn.Sequential):
    def forward(self, x):
        return super().forward(-x)


@pytest.mark.parametrize("module", [Functional(), Gelu(), Backwards(nn.ReLU()), nn.Mish(), nn.ModuleList([nn.ReLU()])])  # fmt: skip
def test_modules_with_a_forward_of_their_own_are_refused(module):
    kind = type(module).__name__
    for given, position in ((module, ""), (nn.Sequential(OrderedDict(net=module)), "module net, ")):
        message = rf"from_torch: no counterpart of {position}{kind}.*nn.Sequential, or .*register"
        with pytest.raises(TypeError, match=message):
            from_torch(given)


def test_the_state_of_a_module_is_not_loaded_transposed():
    module, model = nn.Linear(4, 4), Linear(4, 4, rng=0)
    before = model.theta.copy()
    with pytest.raises(TypeError, match=r"Linear: 'weight' is a tensor of PyTorch; .*load_torch_state\(model, state\)"):  # fmt: skip
        model.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(model.theta, before)
    safetensors.load_torch_state(model, module.state_dict())
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("f")
    np.testing.assert_allclose(model(x), module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5)


def files(tmp_path):
    module = trained(Functional())
    path = tmp_path / "net.safetensors"
    save_file(module.state_dict(), path)
    ours = Sequential(Linear(12, 10), BatchNorm(10, momentum=None), ReLU(), Linear(10, 10), Linear(10, 3), rng=0)  # fmt: skip
    return module, path, ours


RENAME = {"fc1": "0", "norm": "1", "fc2": "3", "fc3.weight": "4.weight", "fc3.bias": "4.bias"}


def test_names_of_a_file_may_be_changed(tmp_path):
    module, path, ours = files(tmp_path)
    safetensors.load(path, ours, rename=RENAME)
    np.testing.assert_array_equal(ours[0].weight.value, module.fc1.weight.detach().numpy().T)
    np.testing.assert_array_equal(ours[1].running_var, module.norm.running_var.numpy())
    assert ours[1].num_batches_tracked == 3
    np.testing.assert_array_equal(ours[4].bias.value, module.fc3.bias.detach().numpy())


def test_a_prefix_may_be_dropped(tmp_path):
    model, other = Sequential(Linear(3, 2), rng=0), Linear(3, 2, rng=1)
    safetensors.save(tmp_path / "a.safetensors", model)
    safetensors.load(tmp_path / "a.safetensors", other, rename={"0": ""})
    np.testing.assert_array_equal(other.theta, model.theta)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({**RENAME, "fc4": "9"}, "rename: the file has no tensor 'fc4'"),
        ({**RENAME, "fc2": "0"}, "rename: two tensors of the file become '0"),
        ({"fc1": "0"}, "no parameter or buffer '"),
    ],
)
def test_wrong_names_change_nothing(tmp_path, rename, message):
    _, path, ours = files(tmp_path)
    before = ours.state_dict()
    with pytest.raises(ValueError, match=f"net.safetensors: .*{message}"):
        safetensors.load(path, ours, rename=rename)
    np.testing.assert_equal(ours.state_dict(), before)
