"""PyTorch: eager with a DataLoader or with indexed tensors, fused Adam, torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from harness.task import Task
from torch.utils.data import DataLoader, TensorDataset

from minidl.checks import Array

if TYPE_CHECKING:
    from workloads.evaluate import Problem as EvaluateProblem
    from workloads.online import Problem as OnlineProblem
    from workloads.simplex import Problem as SimplexProblem
    from workloads.step import Problem as StepProblem


def network(weights: list[Array]) -> torch.nn.Sequential:
    """Return linear layers with these weights, and ReLU between them."""
    layers: list[Any] = []
    for w, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [torch.nn.Linear(*w.shape), torch.nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(torch.from_numpy(w.T.copy()))
            layers[-2].bias.copy_(torch.from_numpy(b))
    return torch.nn.Sequential(*layers[:-1])


def weights_of(model: Any) -> list[Array]:
    """Return copies of the weights, (in, out), and biases."""
    return [p.detach().numpy().T.copy() for p in model.parameters()]


def step(
    problem: StepProblem,
    *,
    fused: bool = False,
    loader: bool = False,
    compiled: bool = False,
    flush: bool = False,
) -> Task:
    """Train on pixels that are float tensors from the start.

    ``loader`` takes batches from a DataLoader, as most scripts do; otherwise they are indexed,
    which is PyTorch's best case. ``compiled`` compiles the loss with its gradient.
    """
    if compiled:
        torch.compiler.reset()
    model = network(problem.weights)
    kind = torch.optim.Adam if problem.optimizer == "Adam" else torch.optim.SGD
    optimizer = kind(model.parameters(), problem.lr, weight_decay=problem.l2, fused=fused)
    x, y = torch.from_numpy(problem.floats()), torch.from_numpy(problem.y)
    tensors = TensorDataset(x, y)
    from_loader = DataLoader(tensors, batch_size=problem.batch, shuffle=True)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def eager(inputs: Any, labels: Any) -> Any:
        return cross_entropy(model(inputs), labels)

    loss = torch.compile(eager) if compiled else eager

    def train(batches: Iterable[Any]) -> None:
        total = 0.0
        for inputs, labels in batches:
            optimizer.zero_grad()
            value = loss(inputs, labels)
            value.backward()
            optimizer.step()
            total += value.item()  # fit reads the loss of every step too

    def indexed(order: Any) -> Iterator[Any]:
        for start in range(0, len(order), problem.batch):
            rows = order[start : start + problem.batch]
            yield x[rows], y[rows]

    def check() -> list[Array]:
        order = problem.order.ravel()
        if loader:
            train(DataLoader(tensors, batch_size=problem.batch, sampler=order.tolist()))
        else:
            train(indexed(torch.from_numpy(order)))
        return weights_of(model)

    def epoch() -> None:
        torch.set_flush_denormal(flush)  # a setting of the processor, for all contestants
        train(from_loader if loader else indexed(torch.randperm(len(y))))
        torch.set_flush_denormal(False)

    return Task(epoch, check, problem.parts)


def online(problem: OnlineProblem) -> Task:
    """Run the usual loop with batch size 1, once for each setting."""
    kind = getattr(torch, problem.dtype)
    x, y = torch.from_numpy(problem.floats).to(kind), torch.from_numpy(problem.y)
    models = [network(problem.weights).to(kind) for _ in problem.settings]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr, weight_decay=l2)
        for model, (lr, l2) in zip(models, problem.settings, strict=True)
    ]
    loss = torch.nn.CrossEntropyLoss()

    def train(rows: list[int]) -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            if problem.model == "perceptron":
                perceptron(model[0], rows)
                continue
            for i in rows:
                optimizer.zero_grad()
                loss(model(x[i : i + 1]), y[i : i + 1]).backward()
                optimizer.step()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def perceptron(layer: Any, rows: list[int]) -> None:
        w, b = layer.weight, layer.bias
        for i in rows:
            xi, yi = x[i], int(y[i])
            predicted = int(torch.addmv(b, w, xi).argmax())
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi
                b[yi] += 1
                b[predicted] -= 1

    def check() -> list[list[Array]]:
        train(problem.order.tolist())
        return [weights_of(model) for model in models]

    sample = list(range(min(len(y), 1000 // len(models))))
    return Task(lambda: train(sample), check, len(sample))


def evaluate(problem: EvaluateProblem) -> Task:
    model, y = network(problem.weights), torch.from_numpy(problem.split.y)
    x = torch.from_numpy(problem.split.x)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def loss_and_accuracy() -> float:
        total = correct = 0.0
        for start in range(0, len(y), 4096):
            rows, labels = x[start : start + 4096], y[start : start + 4096]
            if rows.dtype == torch.uint8:
                rows = rows.to(torch.float32).mul_(problem.split.scale)
            logits = model(rows)
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(1) == labels).sum().item()
        return total / len(y)

    return Task(loss_and_accuracy, loss_and_accuracy)


# Maps onto the simplex.


def relumax(z: Any, b: float) -> Any:
    """Compute relumax, differentiated by autograd."""
    u = torch.relu(z - z.max(dim=-1, keepdim=True).values + b)
    return u / u.sum(dim=-1, keepdim=True)


def simplex(problem: SimplexProblem) -> Task:
    label = torch.from_numpy(problem.y)

    def smoothed(z: Any) -> Any:
        p = relumax(z, problem.b).gather(1, label[:, None])
        return -torch.log((p + problem.eps) / (1 + problem.eps * z.shape[1]))

    functions: dict[str, Callable[[Any], Any]] = {
        "softmax": lambda z: torch.softmax(z, -1),
        "relumax": lambda z: relumax(z, problem.b),
        "softmax loss": lambda z: torch.nn.functional.cross_entropy(z, label),
        "relumax loss": lambda z: smoothed(z).mean(),
    }
    return differentiated(problem, functions[problem.what])


def differentiated(problem: SimplexProblem, function: Callable[[Any], Any]) -> Task:
    """Return the task of a forward and a backward pass by autograd."""
    z = torch.from_numpy(problem.z).requires_grad_()
    dp = None if problem.is_loss else torch.from_numpy(problem.dp)

    def both() -> tuple[Any, Any]:
        value = function(z)
        return value, torch.autograd.grad(value, z, dp)[0]

    def check() -> tuple[Array, Array]:
        value, grad = both()
        return np.asarray(value.detach()), np.asarray(grad)

    return Task(both, check)
