"""A plain PyTorch script in the form of the course's hw1-ffn.py, without minidl.

``python plain_ffn.py DATA.npz EPOCHS OPTIMIZER LEARNING_RATE`` prints its figures as JSON.
"""

import json
import random
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


def configure_seed(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - as the course's script has it
    torch.manual_seed(seed)


class ClassificationDataset(Dataset):
    def __init__(self, data):
        self.X, self.y = self.tensors(data, "train")
        self.dev_X, self.dev_y = self.tensors(data, "valid")
        self.test_X, self.test_y = self.tensors(data, "test")

    def tensors(self, data, part):
        x, y = data[f"X_{part}"] / 256, data[f"y_{part}"].astype(np.int64)
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class FeedforwardNetwork(nn.Module):
    def __init__(self, n_classes, n_features, hidden_size, layers, activation_type, dropout):
        super().__init__()
        activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation_type]
        stack, size = [], n_features
        for _ in range(layers):
            stack += [nn.Linear(size, hidden_size), activation(), nn.Dropout(dropout)]
            size = hidden_size
        self.net = nn.Sequential(*stack, nn.Linear(size, n_classes))

    def forward(self, x):
        return self.net(x)


def train_batch(x, y, model, optimizer, criterion):
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model, x, y, criterion):
    model.eval()
    logits = model(x)
    return criterion(logits, y).item(), (logits.argmax(dim=-1) == y).float().mean().item()


def main(path, epochs, optimizer, learning_rate):
    configure_seed(42)
    dataset = ClassificationDataset(np.load(path))
    loader = DataLoader(
        dataset, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(42)
    )
    n_classes = int(dataset.y.max()) + 1
    model = FeedforwardNetwork(n_classes, dataset.X.shape[1], 32, 1, "relu", 0.0)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optim = kinds[optimizer](model.parameters(), lr=learning_rate, weight_decay=0.0)
    criterion = nn.CrossEntropyLoss()
    train_loss, train_acc = evaluate(model, dataset.X, dataset.y, criterion)
    valid_loss, valid_acc = evaluate(model, dataset.dev_X, dataset.dev_y, criterion)
    rows = [(train_loss, train_acc, valid_loss, valid_acc)]
    for _ in range(epochs):
        model.train()
        losses = [train_batch(x, y, model, optim, criterion) for x, y in loader]
        _, train_acc = evaluate(model, dataset.X, dataset.y, criterion)
        valid_loss, valid_acc = evaluate(model, dataset.dev_X, dataset.dev_y, criterion)
        rows.append((float(np.mean(losses)), train_acc, valid_loss, valid_acc))
    _, test_acc = evaluate(model, dataset.test_X, dataset.test_y, criterion)
    names = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    history = [dict(zip(names, row, strict=True)) for row in rows]
    print(json.dumps({"history": history, "test_accuracy": test_acc}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
