"""Times pruning a small Llama with the code of Wanda's authors, for `regrow prune` to be compared with.

    python scripts/pytorch/prune_llama.py WANDA MODEL_DIR TEXT [--samples 128] [--window 256]

WANDA is a checkout of github.com/locuslab/wanda. Prints the seconds of `wanda` and `sparsegpt` at half of
the weights zero, on the first windows of the text, without loading the model and the text. Beside it:

    time regrow prune MODEL_DIR --method wanda --sparsity 0.5 --calibration TEXT --samples 128 --window 256 --out OUT
"""

import argparse
import contextlib
import io
import sys
import time
import types

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def on_the_processor():
    """Their code asks for CUDA and for a package of data sets that it does not need here."""
    sys.modules["datasets"] = types.SimpleNamespace(load_dataset=None)
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.cuda.synchronize = lambda *args: None
    torch.cuda.empty_cache = lambda: None


def with_rotary_embedding(model):
    """Newer transformers hand a block its rotary embedding; their code, written for older ones, does not."""
    for block in model.model.layers:
        forward = block.forward

        def wrapped(hidden, forward=forward, position_ids=None, position_embeddings=None, **rest):
            if position_embeddings is None:
                position_embeddings = model.model.rotary_emb(hidden, position_ids)
            return forward(hidden, position_ids=position_ids, position_embeddings=position_embeddings, **rest)

        block.forward = wrapped
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wanda")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--window", type=int, default=256)
    args = parser.parse_args()
    on_the_processor()
    sys.path.insert(0, args.wanda)
    import lib.prune

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = tokenizer(open(args.text).read(), add_special_tokens=False, return_tensors="pt").input_ids[0]
    windows = [(ids[i * args.window : (i + 1) * args.window][None], None) for i in range(args.samples)]
    lib.prune.get_loaders = lambda *args, **kwargs: (windows, None)
    settings = types.SimpleNamespace(nsamples=args.samples, seed=0, sparsity_ratio=0.5, use_variant=False)
    for name in ("wanda", "sparsegpt"):
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        model.seqlen, model.hf_device_map = args.window, {}
        with_rotary_embedding(model)
        prune = getattr(lib.prune, f"prune_{name}")
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            prune(settings, model, tokenizer, torch.device("cpu"))
        print(f"{name}: {time.perf_counter() - started:.2f} s", flush=True)


if __name__ == "__main__":
    main()
