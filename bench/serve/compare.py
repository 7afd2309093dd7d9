"""The engine beside llama.cpp and transformers: the same random weights, threads and work, turn by turn in one run.

    python bench/serve/compare.py --dir DIR [--models dense moe] [--kinds int8 int4] [--rounds 3] [--json F]
        [--llama-python PYTHON]    a Python with llama-cpp-python and gguf; without it llama.cpp is left out

Makes models, packed weights and GGUF files in DIR when they are not there. A figure is the median of the rounds; each
round takes the best of two. Machines change speed within minutes, so look at the ratios and at the plain reads.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build/release"
GGUF = {"int8": "q8_0", "int4": "q4_0"}


def quietly(*command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: failed\n{result.stdout[-500:]}{result.stderr[-1500:]}")


def measured(*command):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        quietly(*command, "--json", file.name)
        return json.loads(pathlib.Path(file.name).read_text())


def work_of(flags):
    return ["--prompt", "32", "--tokens", flags.tokens, "--prefill", flags.prefill, "--repeats", "2"]


def runners(flags, model, kind):
    """name -> a call that measures one round."""
    plain, packed = flags.dir / model, flags.dir / f"{model}-{kind}"
    if not plain.exists():
        quietly(sys.executable, HERE / "make_model.py", model, plain)
    if not packed.exists():
        quietly(flags.build / "tessera", "checkpoint", "export", plain, "--to", packed, "--quantize", kind)
    batches = [f"--batch={batch}" for batch in flags.batch]
    found = {"tessera": lambda: measured(flags.build / "bench/serve", "--model", packed, *batches, *work_of(flags))}
    if flags.llama_python:
        found["llama.cpp"] = lambda: measured(flags.llama_python, HERE / "llama_peer.py", "--model", plain, "--kind", GGUF[kind], "--gguf",
                                              flags.dir / f"{model}-{kind}.gguf", "--batch", *flags.batch, *work_of(flags))
    if kind == "int8":
        found["transformers bf16"] = lambda: measured(sys.executable, HERE / "hf_peer.py", "--model", plain, "--batch", *flags.batch,
                                                      *work_of(flags))
    return found


def figures(result):
    rows = {f"{batch} sequences": entry["tokens_per_s"] for batch, entry in sorted(result["decode"].items(), key=lambda item: int(item[0]))}
    return rows | {f"prompt of {result['prefill']['tokens']}": result["prefill"]["tokens_per_s"]}


def compare(flags, model, kind):
    found = {name: [] for name in runners(flags, model, kind)}
    reads = []
    for _ in range(flags.rounds):
        for name, run in runners(flags, model, kind).items():
            result = run()
            found[name].append(figures(result))
            reads += [entry["read_gb_per_s"] for entry in result["decode"].values() if "read_gb_per_s" in entry]
    print(f"\n{model}, {kind}; plain reads {min(reads):.0f} to {max(reads):.0f} GB/s; load average {os.getloadavg()[0]:.1f}")
    medians = {name: {row: statistics.median(round_[row] for round_ in rounds) for row in rounds[0]} for name, rounds in found.items()}
    for row, ours in medians["tessera"].items():
        peers = [f"{name} {rows[row]:.0f} ({ours / rows[row]:.2f} times)" for name, rows in medians.items() if name != "tessera"]
        print(f"  {row:16} {ours:7.1f} tokens/s   {'   '.join(peers)}", flush=True)
    return {"model": model, "kind": kind, "read_gb_per_s": reads, "rounds": found, "median": medians}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, default=BUILD)
    parser.add_argument("--models", nargs="+", default=["dense", "moe"], choices=["dense", "moe"])
    parser.add_argument("--kinds", nargs="+", default=["int8", "int4"], choices=GGUF)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prefill", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-python")
    parser.add_argument("--json", type=pathlib.Path)
    flags = parser.parse_args()
    flags.dir.mkdir(parents=True, exist_ok=True)
    results = [compare(flags, model, kind) for model in flags.models for kind in flags.kinds]
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
