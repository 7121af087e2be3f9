"""Masks and accuracies of torch.nn.utils.prune on a ResNet-20 checkpoint, as a fixture.

    python prune_resnet20.py resnet20.safetensors CIFAR_JPEG_DIR > torch-prune-resnet20.json

Prunes all convolutions by magnitude, layer by layer (uniform) or together (global), without
retraining. A mask's digest is the SHA-256 of one byte per weight (1 = kept), tensors in the order
of their names.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune


class Block(nn.Module):
    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.change = (inside, out) if stride != 1 or inside != out else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.change:
            pad = self.change[1] // 4
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def test_set(folder):
    files = [(f, i) for i, c in enumerate(sorted((Path(folder) / "test").iterdir())) for f in sorted(c.iterdir())]
    images = np.stack([np.asarray(Image.open(f).convert("RGB")) for f, _ in files])
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1), torch.tensor([i for _, i in files])


@torch.no_grad()
def count_correct(model, x, y):
    return sum(int((model(x[i:i + 500]).argmax(1) == y[i:i + 500]).sum()) for i in range(0, len(y), 500))


def main(checkpoint, folder):
    x, y = test_set(folder)
    rows = []
    for budget in ("uniform", "global"):
        for sparsity in (0.5, 0.8, 0.9):
            model = ResNet20()
            model.load_state_dict(load_file(checkpoint))
            model.eval()
            layers = {f"{n}.weight": m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
            if budget == "uniform":
                for layer in layers.values():
                    prune.l1_unstructured(layer, "weight", amount=sparsity)
            else:
                pairs = [(layer, "weight") for layer in layers.values()]
                prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=sparsity)
            masks = {name: layer.weight_mask for name, layer in sorted(layers.items())}
            digest = hashlib.sha256()
            for mask in masks.values():
                digest.update(mask.to(torch.uint8).contiguous().numpy().tobytes())
            rows.append({
                "budget": budget,
                "sparsity": sparsity,
                "zeros": {name: int((mask == 0).sum()) for name, mask in masks.items()},
                "sha256": digest.hexdigest(),
                "correct": count_correct(model, x, y),
            })
    origin = f"torch {torch.__version__.split('+')[0]}, torch.nn.utils.prune; scripts/pytorch/prune_resnet20.py"
    print(json.dumps({"origin": origin, "rows": rows}, indent=1))


main(*sys.argv[1:])
