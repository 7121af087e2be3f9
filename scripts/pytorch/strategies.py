"""The mammoth side of `cargo bench -p regrow-bench --bench strategies`: milliseconds per step of the second task.

    python scripts/pytorch/strategies.py PATH-OF-A-CHECKOUT-OF-github.com/aimagelab/mammoth

Needs mammoth's requirements; none of its data sets is read. Two threads, medians of rounds.
"""
import logging
import statistics
import sys
import time
import types
from argparse import Namespace

import torch

checkout = sys.argv[1]
sys.argv = sys.argv[:1]
sys.path.insert(0, checkout)
# Models import functions of this package, which reads every data set there is; handed one, they call none.
datasets = types.ModuleType("datasets")
for name in ["get_dataset", "get_dataset_names", "get_dataset_config_names", "get_dataset_class"]:
    setattr(datasets, name, None)
sys.modules["datasets"] = datasets

from backbone.MNISTMLP import BaseMNISTMLP  # noqa: E402
from models.derpp import Derpp  # noqa: E402
from models.er import Er  # noqa: E402
from models.ewc_on import EwcOn  # noqa: E402
from models.sgd import Sgd  # noqa: E402

BATCH, MEMORY, STEPS, WARM, ROUNDS = 128, 1000, 24, 4, 11
torch.set_num_threads(2)
logging.disable(logging.WARNING)

args = Namespace(
    lr=0.01, optimizer="sgd", optim_wd=0.0, optim_mom=0.0, optim_nesterov=False, label_perc=1, label_perc_by_class=1,
    buffer_size=MEMORY, minibatch_size=BATCH, batch_size=1, alpha=0.5, beta=0.5, e_lambda=100.0, gamma=1.0, device="cpu",
    dataset="none", model="none", nowand=1, debug_mode=0, code_optimization=0,
)


class Data:
    """What a model asks of a data set."""
    N_CLASSES, N_TASKS, N_CLASSES_PER_TASK, SETTING = 10, 2, 5, "class-il"

    def __init__(self, images, labels):
        self.train_loader = [(images[i:i + 1], labels[i:i + 1]) for i in range(50)]


def second_task(kind):
    """Milliseconds per step of the second task."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2 * STEPS * BATCH, 1, 28, 28, generator=generator)
    labels = torch.arange(len(images)) % 5
    data = Data(images, labels)
    model = kind(BaseMNISTMLP(784, 10, hidden_size=400), torch.nn.functional.cross_entropy, args, None, dataset=data)
    model.net.train()
    for task in range(2):
        for step in range(STEPS):
            if (task, step) == (1, WARM):
                start = time.perf_counter()
            at = (task * STEPS + step) * BATCH
            batch = images[at:at + BATCH]
            model.observe(batch, labels[at:at + BATCH] + 5 * task, batch)
        if task == 0 and hasattr(model, "end_task"):
            model.end_task(data)
    return 1e3 * (time.perf_counter() - start) / (STEPS - WARM)


kinds = {"fine-tune (sgd)": Sgd, "ER (er)": Er, "DER++ (derpp)": Derpp, "online EWC (ewc_on)": EwcOn}
times = {name: [] for name in kinds}
# Side by side, so that what else the machine does falls on all alike.
for _ in range(ROUNDS):
    for name, kind in kinds.items():
        times[name].append(second_task(kind))
base = statistics.median(times["fine-tune (sgd)"])
for name, found in times.items():
    middle = statistics.median(found)
    print(f"{name:24} {middle:8.2f} ms   {middle / base:5.2f} times fine-tuning   (least {min(found):.2f} ms)")
