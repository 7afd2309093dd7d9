"""Hugging Face transformers on a model directory in bf16: decoding of several sequences and one long prompt, the same
work as bench/serve.cpp. Needs torch and transformers.

    python bench/serve/hf_peer.py --model DIR [--batch 1 8] [--tokens 32] [--prefill 2048] [--json F]
"""
import argparse
import json
import pathlib
import time

import torch
import transformers


def prompts_of(seed, batch, length, vocab):
    return torch.tensor([[(seed * 7919 + s * 104729 + i * 31 + i * i * 7) % vocab for i in range(length)] for s in range(batch)])


@torch.inference_mode()
def decode_rate(model, batch, prompt, tokens, seed):
    answer = model(prompts_of(seed, batch, prompt, model.config.vocab_size), use_cache=True, logits_to_keep=1)
    last = answer.logits[:, -1:].argmax(-1)
    start = time.perf_counter()
    for _ in range(tokens - 1):
        answer = model(last, past_key_values=answer.past_key_values, use_cache=True)
        last = answer.logits[:, -1:].argmax(-1)
    return batch * (tokens - 1) / (time.perf_counter() - start)


@torch.inference_mode()
def prefill_rate(model, length, seed):
    text = prompts_of(seed, 1, length, model.config.vocab_size)
    start = time.perf_counter()
    model(text, use_cache=True, logits_to_keep=1)
    return length / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(flags.model, dtype=torch.bfloat16).eval()
    result = {"decode": {}}
    for batch in flags.batch:
        rate = max(decode_rate(model, batch, flags.prompt, flags.tokens, seed) for seed in range(flags.repeats))
        result["decode"][batch] = {"tokens_per_s": rate}
        print(f"transformers decode, {batch:2} sequences: {rate:7.1f} tokens/s", flush=True)
    if flags.prefill:
        rate = max(prefill_rate(model, flags.prefill, seed) for seed in range(flags.repeats))
        result["prefill"] = {"tokens": flags.prefill, "tokens_per_s": rate}
        print(f"transformers prefill of {flags.prefill}: {rate:7.1f} tokens/s", flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
