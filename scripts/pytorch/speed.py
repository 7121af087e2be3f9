"""The PyTorch side of `cargo bench -p regrow-bench --bench speed`: milliseconds, median of rounds, two threads."""
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn.utils import prune

sys.argv = sys.argv[:1]
torch.set_num_threads(2)


def median(name, f, rounds):
    f(), f()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    print(f"{name:40} {statistics.median(times) * 1e3:9.2f} ms")


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


def mask(w):
    magnitudes = w.abs().flatten()
    threshold = torch.kthvalue(magnitudes, magnitudes.numel() // 2).values
    return magnitudes > threshold


def wanda(w, norms):
    scores = w.abs() * norms
    kept = scores.topk(scores.shape[1] // 2, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, kept, True)


torch.manual_seed(0)
y = torch.randint(0, 10, (128,))
mlp = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
median("step/mlp 784-300-100-10, batch 128", step_of(mlp, torch.randn(128, 784), y), 200)
median("step/resnet20, batch 128", step_of(resnet20(), torch.randn(128, 3, 32, 32), y), 15)
w = torch.randn(4096, 11008)
median("mask/4096x11008, kthvalue and compare", lambda: mask(w), 5)
norms = torch.rand(11008)
median("mask/4096x11008, wanda by topk", lambda: wanda(w, norms), 5)
layers = [nn.Linear(11008, 4096, bias=False) for _ in range(7)]
median("mask/4096x11008, prune.l1_unstructured", lambda: prune.l1_unstructured(layers.pop(), "weight", 0.5), 5)
median("mask/4096x11008, one pass (sum)", lambda: w.sum(), 20)
