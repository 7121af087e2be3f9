"""Sparse against dense PyTorch on one machine in one run: 4096x4096, one input and sixteen.

cargo bench -p regrow-bench --bench sparse --no-run
python scripts/pytorch/sparse.py target/release/deps/sparse-HASH [ROUNDS] [THREADS] [OUR_DEVICE THEIR_DEVICE]

The program keeps its matrices and answers with the time of one run; in every round each case of ours and of
PyTorch's is run ten times in turn, so that each finds its matrix in the caches that hold it. Printed are the
least milliseconds, the ratio over the dense product in
f32 (nn.functional.linear, or torch.mv if that is faster), the bandwidth of reading 256 MiB and the rate of a
matrix product. Devices other than the processor are named as each program calls them (cuda:0 cuda:0, wgpu cpu);
there ten products are timed together, and the read of 256 MiB is PyTorch's on its device, ours on the processor.
"""
import os
import subprocess
import sys
import time

program = sys.argv[1]
rounds, threads = (int(n) for n in sys.argv[2:4] + ["20", "2"][len(sys.argv[:4]) - 2:])
our_device, their_device = sys.argv[4:6] or ("flex", "cpu")
ours = subprocess.Popen(
    [program, "--answer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    env={**os.environ, "RAYON_NUM_THREADS": str(threads), "REGROW_DEVICE": our_device})
names = list(iter(lambda: ours.stdout.readline().strip(), ""))

import torch  # noqa: E402

torch.set_num_threads(threads)
torch.manual_seed(0)
torch.set_default_device(their_device)
together = 1 if their_device == "cpu" else 10
N = 4096
linear = torch.nn.functional.linear
w = torch.randn(N, N)
x = {batch: torch.randn(batch, N) for batch in (1, 16)}
one = x[1][0]


def csr(percent):
    threshold = w.abs().flatten().kthvalue(N * N * percent // 100).values
    return torch.where(w.abs() > threshold, w, 0.0).to_sparse_csr()


theirs = {"mv F32 batch 1": lambda: torch.mv(w, one)}
for dtype, name in ((torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")):
    for batch in x:
        wd, xd = w.to(dtype), x[batch].to(dtype)
        theirs[f"linear {name} batch {batch}"] = lambda wd=wd, xd=xd: linear(xd, wd)
for percent in (50, 90):
    sparse = csr(percent)
    for batch in x:
        theirs[f"CSR {percent} % F32 batch {batch}"] = lambda s=sparse, y=x[batch].t().contiguous(): s @ y
big, a = torch.ones(64 << 20), torch.randn(2048, 2048)
theirs["read of 256 MiB"] = lambda: big.sum()
theirs["product 2048x2048x2048"] = lambda: a @ a


def run_ours(index):
    ours.stdin.write(f"{index}\n")
    return int(ours.stdout.readline()) / 1e6


def run_theirs(f):
    start = time.perf_counter()
    for _ in range(together):
        f()
    if their_device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / together


best = {}
keys = [("ours", i, name) for i, name in enumerate(names)] + [("PyTorch", f, name) for name, f in theirs.items()]
for _ in range(rounds):
    for who, what, name in keys:
        if who == "PyTorch":
            times = [run_theirs(what) for _ in range(10)]
        else:
            # PyTorch's threads wait at work for a while before they sleep.
            time.sleep(0.01)
            times = [run_ours(what) for _ in range(10)]
        best[who, name] = min(times + [best.get((who, name), 1e9)])

dense = {1: min(best["PyTorch", "mv F32 batch 1"], best["PyTorch", "linear F32 batch 1"]),
         16: best["PyTorch", "linear F32 batch 16"]}
for (who, name), ms in best.items():
    batch = int(name.rsplit(" ", 1)[1]) if "batch" in name else 0
    ratio = f"{ms / dense[batch]:6.2f}" if batch else ""
    print(f"{who:8} {name:32} {ms:9.3f} ms {ratio}")
for who in ("ours", "PyTorch"):
    print(f"{who}: read {(1 << 28) / best[who, 'read of 256 MiB'] / 1e6:.1f} GB/s")
print(f"PyTorch: product {2 * 2048 ** 3 / best['PyTorch', 'product 2048x2048x2048'] / 1e6:.0f} GFLOP/s")
