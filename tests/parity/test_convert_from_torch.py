"""Modules as PyTorch's users write them, and their files, taken over with their weights."""

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


def block(i, o):
    return nn.Sequential(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.GELU(), nn.Dropout(0.1))


class Classifier(nn.Module):
    """Nested modules, in another order than that of their calls."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.body = nn.ModuleList([block(12, 16), block(16, 8)])
        self.act = nn.SiLU()
        self.flatten = nn.Flatten()

    def forward(self, x):
        x = self.flatten(x)
        for part in self.body:
            x = self.act(part(x))
        return self.head(x)


class Functional(nn.Module):
    """The style of many tutorials: functions in forward."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.norm = nn.BatchNorm1d(10, momentum=None)

    def forward(self, x):
        x = torch.flatten(x, 1)
        x = F.relu(self.norm(self.fc1(x)))
        x = F.dropout(x, p=0.3, training=self.training)
        x = F.gelu(self.fc2(x), approximate="tanh").tanh()
        x = F.leaky_relu(F.elu(x, alpha=0.5), 0.2)
        return torch.sigmoid(F.softplus(F.silu(self.fc3(x))))


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Functional()
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        x = x.reshape(x.shape[0], -1).contiguous().view(-1, 12)
        return F.softmax(self.out(self.net(x)), dim=1)


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
@pytest.mark.parametrize("make", [Classifier, Functional, Viewed, lambda: nn.Sequential(Classifier(), nn.Identity(), nn.Linear(3, 3))])  # fmt: skip
def test_a_user_s_module(make, dtype):
    module = trained(make()).to(getattr(torch, dtype))
    model = from_torch(module, rng=0)
    x = np.random.default_rng(0).normal(size=(9, 3, 4)).astype(dtype)
    first = module.body[0][0] if isinstance(module, Classifier) else None
    if first is None:
        x = x.reshape(9, 12)
    expected = module(torch.from_numpy(x)).detach().numpy()
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(model(x), expected, rtol=rtol, atol=rtol)
    assert model.dtype == dtype
    model.forward(x, train=True)  # Dropout has a stream
    if first is not None:
        np.testing.assert_array_equal(model[1][0].weight.value, first.weight.detach().numpy().T)


def test_the_layers_follow_the_calls():
    assert [type(layer).__name__ for layer in from_torch(Functional())] == ["Flatten", "Linear", "BatchNorm", "ReLU", "Dropout", "Linear", "GELU", "Tanh", "ELU", "LeakyReLU", "Linear", "SiLU", "Softplus", "Sigmoid"]  # fmt: skip
    model = from_torch(Functional())
    assert (model[2].momentum, model[4].p, model[6].approximate) == (None, 0.3, "tanh")
    assert (model[8].alpha, model[9].slope) == (0.5, 0.2)


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


class Net(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.call = forward

    def forward(self, x):
        return self.call(self, x)


def two(i=2):
    return nn.Linear(i, i)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Net(lambda m, x: x + m.a(x), a=two()), TypeError, r"no counterpart of Net: its forward is not a chain at .*add"),
        (Net(lambda m, x: 2 * m.a(x), a=two()), TypeError, "not a chain at .*mul"),
        (Net(lambda m, x: m.a(x) * 2, a=two()), TypeError, "its forward calls 'mul', which has no counterpart"),
        (Net(lambda m, x: F.log_softmax(m.a(x), 1), a=two()), TypeError, "calls 'log_softmax', which has no counterpart"),
        (Net(lambda m, x: m.a(x) if x.sum() > 0 else x, a=two()), TypeError, "its forward cannot be traced"),
        (Net(lambda m, x: (m.a(x), x), a=two()), TypeError, "does not return the result of its last step"),
        (Net(lambda m, x: torch.flatten(m.a(x)), a=two()), TypeError, r"calls 'flatten' with options that have no counterpart \(expected all axes but the first\)"),
        (Net(lambda m, x: F.softplus(m.a(x), beta=2), a=two()), TypeError, "calls 'softplus' with options"),
        (Net(lambda m, x: m.a(x).view(2, -1), a=two()), TypeError, "calls 'view' with options"),
        (Net(lambda m, x: m.a(m.a(x)), a=two()), ValueError, "has 0 tensors that are not used yet, and .* needs 2; does a module occur twice"),
        (nn.Sequential(two(), Net(lambda m, x: m.b(x), b=Net(lambda m, x: x - m.c(x), c=two()))), TypeError, r"no counterpart of module 1, Net: its forward is not a chain"),
        (Net(lambda m, x: m.b(x), b=nn.Conv1d(2, 2, 1)), TypeError, r"no counterpart of module b, Conv1d"),
        (nn.BatchNorm1d(3, affine=False), ValueError, "expected a BatchNorm1d with weight, bias and running statistics"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), ValueError, "got module 0, BatchNorm1d"),
        (nn.Flatten(0), ValueError, "expected a Flatten of all axes but the first"),
        (nn.Softplus(beta=2), ValueError, "expected a Softplus of beta 1"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(module, error, message):
    with pytest.raises(error, match=f"from_torch: .*{message}"):
        from_torch(module)


def test_the_state_of_a_module_is_not_loaded_transposed():
    module, model = nn.Linear(4, 4), Linear(4, 4, rng=0)
    before = model.theta.copy()
    with pytest.raises(TypeError, match=r"Linear: 'weight' is a tensor of PyTorch, .*load_torch_state\(model, state\)"):  # fmt: skip
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
