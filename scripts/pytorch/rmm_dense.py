"""The NumPy side of `cargo bench -p regrow-bench --bench rmm`: RMM by dense SVD, seconds for 32 layers.

Each granularity as the formula says it: vectors that belong together as columns of X, `np.linalg.svd(X)`, the
first two columns of U S and rows of V^T. Layers take equally long: `--layers 2` measures two and multiplies.
"""
import argparse
import time

import numpy as np

WIDTH, RANK, MODELS, LAYERS, BASIS = 4096, 16, 8, 32, 2


def fit(x):
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u[..., :BASIS] * s[..., None, :BASIS], vt[..., :BASIS, :]


def position(left, right):
    # [positions, r, n]: a row of every left factor, a column of every right one.
    return fit(left.transpose(1, 2, 0)), fit(right.transpose(2, 1, 0))


def layer(left, right):
    return fit(left.reshape(MODELS, -1).T), fit(right.reshape(MODELS, -1).T)


def product(left, right):
    return fit((left @ right).reshape(MODELS, -1).T)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=LAYERS)
    layers = parser.parse_args().layers
    rng = np.random.default_rng(0)
    for name, way in [("position", position), ("layer", layer), ("product", product)]:
        seconds = 0.0
        for _ in range(layers):
            left = rng.random((MODELS, WIDTH, RANK), dtype=np.float32) - 0.5
            right = rng.random((MODELS, RANK, WIDTH), dtype=np.float32) - 0.5
            start = time.perf_counter()
            way(left, right)
            seconds += time.perf_counter() - start
        print(f"{name:10} {seconds * LAYERS / layers:9.3f} s ({layers} layers measured)", flush=True)
