"""Tokens a second of `regrow generate --sparse` and of transformers' generate, on one machine, in turn.

    python scripts/pytorch/generate.py REGROW TOKENIZER_DIR [--sparsity 0.5] [--pattern 2:4] [--tokens 48] [--rounds 3]

REGROW is the program. The model is a Llama of 162 million weights drawn at random, in bfloat16, whose linear layers
but the head REGROW prunes by magnitude; its tokenizer is that of TOKENIZER_DIR, of at most 32,000 tokens. Printed are
the medians of the rounds: ours dense in f32 and sparse, theirs in f32 and bfloat16, each the best of three texts in
a round, and the ratio of our sparse time to each of the others.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

SIZES = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 2048,
}
PROMPT = "The king"


def ours(program, folder, tokens):
    command = [program, "generate", folder, "--prompt", PROMPT, "--tokens", str(tokens), "--sparse"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rates = re.findall(r"^(?:dense|sparse): +([0-9.]+) tokens a second", said, re.M)
    return [float(rate) for rate in rates]


def theirs(folder, tokenizer, tokens, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    least = float("inf")
    with torch.no_grad():
        for _ in range(3):
            started = time.perf_counter()
            model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
            least = min(least, time.perf_counter() - started)
    return tokens / least


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("regrow")
    parser.add_argument("tokenizer")
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--pattern", default="unstructured")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        dense, pruned = os.path.join(folder, "dense"), os.path.join(folder, "pruned")
        LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16).save_pretrained(dense)
        tokenizer.save_pretrained(dense)
        prune = ["--sparsity", args.sparsity, "--pattern", args.pattern, "--out", pruned]
        subprocess.run([args.regrow, "prune", dense, *prune], check=True, stdout=subprocess.DEVNULL)
        rounds = []
        for _ in range(args.rounds):
            rates = ours(args.regrow, pruned, args.tokens)
            rates += [theirs(pruned, tokenizer, args.tokens, dtype) for dtype in (torch.float32, torch.bfloat16)]
            rounds.append(rates)
    names = ["ours, dense f32", "ours, sparse", "transformers, f32", "transformers, bfloat16"]
    medians = [statistics.median(rates) for rates in zip(*rounds)]
    for name, rate in zip(names, medians):
        print(f"{name}: {rate:.1f} tokens a second, our sparse time is {rate / medians[1]:.2f} of this")


if __name__ == "__main__":
    main()
