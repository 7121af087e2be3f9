"""What several of these scripts time: a median of rounds, a training step, ResNet-20."""
import statistics
import time

import torch
from torch import nn


def median(name, f, rounds):
    """Prints the median and the range of so many rounds of `f`, in milliseconds, after two unseen."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    f(), f(), wait()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        f()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"{name:40} {statistics.median(times):9.2f} ms ({min(times):.2f} to {max(times):.2f})", flush=True)


def step_of(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


class Block(nn.Module):
    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.pad = out // 4 if inside != out else 0

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(y + x)


def resnet20():
    blocks = [Block(16, 16, 1) for _ in range(3)]
    blocks += [Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp():
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def wanda(w, norms):
    """Half of each row by |w| ||x||."""
    scores = w.abs() * norms
    kept = scores.topk(scores.shape[1] // 2, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, kept, True)
