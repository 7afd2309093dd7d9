#!/usr/bin/env python3
"""Whether the tools themselves take what `tessera plan ... --emit` writes.

    scripts/check_emit.py [--tessera build/release/tessera]

Plans a few runs, emits each for every tool and hands the result to the tool's own parser, where its package is
installed in this Python (torchtitan, deepspeed, megatron-core, vllm, sglang; no GPU is needed, versions as in
src/plan/emit/emit.h). A tool that is not here is skipped with the reason. Exit status 1 when one refuses.
tests/plan_emit_test.py compares with the names of options alone and needs none of them.
"""
import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRAIN = ["train", "--model", "llama-3.1-70b", "--cluster", "h100", "--gpus", "64", "--seq", "8192", "--batch", "128"]
MOE = ["train", "--model", "qwen3-30b-a3b", "--cluster", "h200", "--gpus", "16", "--seq", "4096", "--batch", "512"]
SERVE = ["serve", "--model", "llama-3.1-70b", "--cluster", "h100", "--gpus", "8", "--isl", "2048", "--osl", "256"]
WIDE = ["serve", "--model", "deepseek-v3", "--cluster", "h200", "--gpus", "16", "--isl", "4096", "--osl", "512"]
PLANS = {
    "megatron": [TRAIN + ["--layout", "dp=4,tp=8,pp=2,virtual_stages=4"], TRAIN + ["--layout", "dp=2,tp=8,pp=4,virtual_stages=3"],
                 MOE + ["--layout", "dp=8,tp=2,ep=8", "--precision", "mxfp8"]],
    "torchtitan": [TRAIN + ["--layout", "fsdp=8,tp=8,recompute=full"], TRAIN + ["--layout", "dp=4,tp=8,pp=2,virtual_stages=2"],
                   MOE + ["--layout", "fsdp=16,ep=8", "--micro-batch", "2"]],
    "deepspeed": [TRAIN + ["--layout", "fsdp=64,recompute=full"], MOE + ["--layout", "dp=16,ep=8"]],
    "vllm": [SERVE, SERVE + ["--precision", "fp8", "--draft-tokens", "1"], WIDE + ["--layout", "tp=1,dp=16,ep=16"]],
    "sglang": [SERVE, SERVE + ["--precision", "fp8", "--draft-tokens", "1"], WIDE + ["--layout", "tp=2,dp=8,ep=16"]],
}


def emit(tessera, tool, plan):
    run = subprocess.run([tessera, "plan", *plan, "--emit", tool], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{tool}: tessera plan {shlex.join(plan)}: {run.stderr.strip().splitlines()[-1]}")
    return run.stdout


def words(text):
    """The arguments after the program, comments left out."""
    command = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return shlex.split(command.replace("\\\n", " "))


def torchtitan(text):
    from torchtitan.config import ConfigManager
    arguments = words(text)
    arguments = arguments[arguments.index("--module"):]
    moe = "--parallelism.expert_parallel_degree" in arguments
    arguments[1], arguments[3] = ("qwen3", "qwen3_30b_a3b") if moe else ("llama3", "llama3_70b")
    ConfigManager().parse_args(arguments)


def deepspeed(text):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.tensor_parallel.config import get_tensor_parallel_config
    config = json.loads(text)
    DeepSpeedZeroConfig(**config["zero_optimization"])
    get_tensor_parallel_config(config)


def megatron(text):
    from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout
    arguments = words(text)
    if "--pipeline-model-parallel-layout" in arguments:
        stages = int(arguments[arguments.index("--pipeline-model-parallel-size") + 1])
        layout = arguments[arguments.index("--pipeline-model-parallel-layout") + 1]
        layers = int(re.search(r"--num-layers (\d+)", text)[1])
        PipelineParallelLayerLayout(layout, stages).validate_layer_layout(num_layers=layers, mtp_num_layers=0)


def vllm(text):
    import torch
    import vllm.platforms
    if not torch.cuda.is_available():  # parsing needs some device
        from vllm.platforms.cpu import CpuPlatform
        vllm.platforms._current_platform = CpuPlatform()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(words(text)[3:])


def sglang(text):
    from sglang.srt.server_args import ServerArgs
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    parser.parse_args(words(text)[3:])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tessera", default=str(ROOT / "build/release/tessera"))
    tessera, refused = options.parse_args().tessera, 0
    for tool, plans in PLANS.items():
        try:
            for plan in plans:
                globals()[tool](emit(tessera, tool, plan))
            print(f"{tool}: takes {len(plans)} plans")
        except ImportError as error:
            print(f"{tool}: skipped: {error}")
        except (Exception, SystemExit) as error:
            refused += 1
            print(f"{tool}: refuses {shlex.join(plan)}: {' '.join(str(error).split())}")
    sys.exit(refused > 0)


if __name__ == "__main__":
    main()
