"""The PyTorch side of `cargo bench -p regrow-bench --bench layer`: milliseconds, median and range of rounds.

    python scripts/pytorch/layer.py [--device cuda] [ROWS COLS]

Magnitude is torch.nn.utils.prune; Wanda and SparseGPT (its algorithm 1, blocks of 128 columns) are written
here after their papers. A masked step is one of a network under torch.nn.utils.prune's masks.
"""
import argparse
import copy

import torch
from torch import nn
from torch.nn.utils import prune

from common import median, mlp, resnet20, step_of, wanda

SEQUENCES, TOKENS = 8, 2048

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cpu")
parser.add_argument("shape", nargs="*", type=int, default=[4096, 11008])
args = parser.parse_args()
rows, cols = args.shape
torch.manual_seed(0)
torch.set_default_device(args.device)


def masked(model):
    for part in [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))][:-1]:
        prune.l1_unstructured(part, "weight", 0.9)
    return model


def squares():
    total = torch.zeros(cols)
    for _ in range(SEQUENCES):
        total += inputs.square().sum(0) / SEQUENCES
    return total.sqrt()


def moments():
    total = torch.zeros(cols, cols)
    for _ in range(SEQUENCES):
        total += (2 / SEQUENCES) * (inputs.T @ inputs)
    return total


def sparsegpt(w, h, block=128, damping=0.01):
    w = w.clone()
    dead = h.diag() == 0
    h.diagonal().masked_fill_(dead, 1.0)
    w[:, dead] = 0
    h.diagonal().add_(damping * h.diag().mean())
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for start in range(0, cols, block):
        end = min(start + block, cols)
        part, u = w[:, start:end].clone(), upper[start:end, start:end]
        scores = (part / u.diag()).square()
        pruned = scores <= scores.flatten().kthvalue(scores.numel() // 2).values
        errors = torch.zeros_like(part)
        for i in range(end - start):
            kept = part[:, i].masked_fill(pruned[:, i], 0.0)
            errors[:, i] = (part[:, i] - kept) / u[i, i]
            part[:, i:] -= errors[:, i : i + 1] * u[i : i + 1, i:]
            part[:, i] = kept
        w[:, start:end] = part
        w[:, end:] -= errors @ upper[start:end, end:]
    return w


name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "the processor"
print(f"{name}, PyTorch {torch.__version__}, a layer of {rows}x{cols}, {TOKENS} tokens a sequence")
labels = torch.arange(128) % 10
for title, network, size in [("mlp", mlp, (784,)), ("resnet20", resnet20, (3, 32, 32))]:
    images = torch.rand(128, *size)
    median(f"step/{title}/dense", step_of(network(), images, labels), 30)
    median(f"step/{title}/masked", step_of(masked(network()), images, labels), 30)
linear = nn.Linear(cols, rows, bias=False)
inputs = torch.randn(TOKENS, cols)
weight = linear.weight.detach()
median("magnitude", lambda: prune.l1_unstructured(copy.deepcopy(linear), "weight", 0.5), 5)
median("magnitude, kthvalue alone", lambda: weight.abs() > weight.abs().flatten().kthvalue(rows * cols // 2).values, 5)
median(f"wanda: {SEQUENCES} sequences", squares, 3)
median("wanda: sequences and layer", lambda: weight * wanda(weight, squares()), 3)
median(f"sparsegpt: {SEQUENCES} sequences", moments, 3)
median("sparsegpt: sequences and layer", lambda: sparsegpt(weight, moments()), 3)
