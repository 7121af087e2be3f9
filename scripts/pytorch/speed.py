"""The PyTorch side of `cargo bench -p regrow-bench --bench speed`: milliseconds, median of rounds, two threads."""
import torch
from torch import nn
from torch.nn.utils import prune

from common import median, mlp, resnet20, step_of, wanda

torch.set_num_threads(2)


def mask(w):
    magnitudes = w.abs().flatten()
    threshold = torch.kthvalue(magnitudes, magnitudes.numel() // 2).values
    return magnitudes > threshold


torch.manual_seed(0)
y = torch.randint(0, 10, (128,))
median("step/mlp 784-300-100-10, batch 128", step_of(mlp(), torch.randn(128, 784), y), 200)
median("step/resnet20, batch 128", step_of(resnet20(), torch.randn(128, 3, 32, 32), y), 15)
w = torch.randn(4096, 11008)
median("mask/4096x11008, kthvalue and compare", lambda: mask(w), 5)
norms = torch.rand(11008)
median("mask/4096x11008, wanda by topk", lambda: wanda(w, norms), 5)
layers = [nn.Linear(11008, 4096, bias=False) for _ in range(7)]
median("mask/4096x11008, prune.l1_unstructured", lambda: prune.l1_unstructured(layers.pop(), "weight", 0.5), 5)
median("mask/4096x11008, one pass (sum)", lambda: w.sum(), 20)
