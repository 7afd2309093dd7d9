"""`tessera plan --emit`: only options that the tools have (names in emit_options.json, with version and source;
scripts/check_emit.py asks the tools' own parsers), degrees that make up the devices, one clear error else."""
import json
import math
import shlex
import tomllib

import pytest
import yaml

TRAIN = ["plan", "train", "--model", "llama-3.1-70b", "--cluster", "h100", "--gpus", 64, "--seq", 8192, "--batch", 128]
SMALL = ["plan", "train", "--model", "llama-3.1-8b", *TRAIN[4:]]
MOE = ["plan", "train", "--model", "qwen3-30b-a3b", "--cluster", "h200", "--gpus", 16, "--seq", 4096, "--batch", 512]
SERVE = ["plan", "serve", "--model", "llama-3.1-70b", "--cluster", "h100", "--gpus", 8, "--isl", 2048, "--osl", 256]
WIDE = ["plan", "serve", "--model", "deepseek-v3", "--cluster", "h200", "--gpus", 16, "--isl", 4096, "--osl", 512]


@pytest.fixture(scope="module")
def emit(run_tessera):
    def run(tool, command, *more):
        result = run_tessera(*command, *more, "--emit", tool)
        assert result.returncode == 0, result.stderr
        return result.stdout
    return run


def flags(text):
    """{option: [values]} of a command; comments stand above it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words, found, name = shlex.split("\n".join(lines).replace("\\\n", " ")), {}, None
    for word in words:
        if word.startswith("--") or word.startswith("activation-checkpoint:"):
            found[name := word] = []
        elif name:
            found[name].append(word)
    return {name: values for name, values in found.items() if name not in ("--nproc-per-node", "--nnodes")}


@pytest.fixture(scope="module")
def known(root):
    return {tool: set(entry["options"]) for tool, entry in json.loads((root / "tests/emit_options.json").read_text()).items()}


@pytest.mark.parametrize("tool, command, more", [
    ("megatron", TRAIN, ["--layout", "dp=4,tp=8,pp=2,virtual_stages=4,recompute=layernorm+mlp"]),
    ("megatron", SMALL, ["--layout", "dp=8,pp=8,virtual_stages=3,recompute=full:first=1", "--precision", "nvfp4"]),
    ("megatron", TRAIN, ["--layout", "fsdp=64,recompute=full"]),
    ("megatron", MOE, ["--layout", "dp=8,tp=2,ep=8", "--precision", "mxfp8"]),
    ("torchtitan", TRAIN, ["--layout", "fsdp=8,tp=8,recompute=full"]),
    ("torchtitan", TRAIN, ["--layout", "dp=4,tp=8,pp=2,virtual_stages=2"]),
    ("torchtitan", MOE, ["--layout", "fsdp=16,ep=8", "--micro-batch", "2"]),
    ("vllm", SERVE, ["--precision", "fp8", "--draft-tokens", 1]),
    ("vllm", WIDE, ["--layout", "tp=1,dp=16,ep=16"]),
    ("sglang", SERVE, ["--precision", "fp8", "--draft-tokens", 1]),
    ("sglang", WIDE, ["--layout", "tp=2,dp=8,ep=16"]),
])
def test_every_flag_is_one_of_the_tool(emit, known, tool, command, more):
    found = flags(emit(tool, command, *more))
    assert len(found) > 4 and set(found) <= known[tool], set(found) - known[tool]


def keys(tree, prefix=""):
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys(value, prefix + key + ".")


def test_files_have_only_keys_of_the_tool(emit, known):
    for command, more in ((TRAIN, ["--layout", "fsdp=64,recompute=full"]), (MOE, ["--layout", "dp=16,ep=8"]),
                          (SMALL, ["--layout", "dp=8,fsdp=8,recompute=full"])):
        config = json.loads(emit("deepspeed", command, *more))
        notes = config.pop("tessera_notes")
        assert set(keys(config)) <= known["deepspeed"]
        assert any("recompute = full" in note for note in notes) or "recompute=full" not in more[1]
    for command, more in ((SERVE, ["--engine", "trtllm", "--draft-tokens", 2]), (WIDE, ["--layout", "tp=1,dp=16,ep=16"])):
        assert set(keys(yaml.safe_load(emit("tensorrt-llm", command, *more)))) <= known["tensorrt-llm"]


def test_values_are_those_of_the_layout(emit):
    found = flags(emit("megatron", TRAIN, "--layout", "dp=4,tp=8,pp=2,virtual_stages=4,recompute=full"))
    assert found["--tensor-model-parallel-size"] == ["8"] and found["--pipeline-model-parallel-size"] == ["2"]
    assert found["--num-virtual-stages-per-pipeline-rank"] == ["4"] and found["--global-batch-size"] == ["128"]
    assert found["--recompute-method"] == ["uniform"] and "--sequence-parallel" in found
    uneven = flags(emit("megatron", SMALL, "--layout", "dp=8,pp=8,virtual_stages=3,recompute=full"))
    pieces = uneven["--pipeline-model-parallel-layout"][0].split("|")
    assert len(pieces) == 24 and sum(piece.count("t") for piece in pieces) == 32 and "".join(pieces)[::-1][0] == "L"
    config = json.loads(emit("deepspeed", TRAIN, "--layout", "fsdp=64,recompute=full"))
    assert config["zero_optimization"]["stage"] == 3
    assert config["train_batch_size"] == config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"] * 64
    for more, refused in ((["--layout", "dp=4,tp=8,pp=2,virtual_stages=2"], True), (["--layout", "fsdp=8,tp=8,recompute=full"], False)):
        assert ("--training.disable_cuda_graphs" in flags(emit("torchtitan", TRAIN, *more))) == refused
    sglang = flags(emit("sglang", WIDE, "--layout", "tp=2,dp=8,ep=16"))
    assert (sglang["--tp-size"], sglang["--attn-dp-size"], sglang["--ep-size"]) == (["16"], ["8"], ["16"])


def test_tessera_reads_back_its_own(emit, run_tessera):
    config = tomllib.loads(emit("tessera", TRAIN, "--layout", "fsdp=4,tp=8,pp=2,recompute=full"))
    assert config["layout"] == {"fsdp": 4, "tp": 8, "pp": 2, "schedule": "1f1b", "recompute": "full"}
    assert config["work"]["global_batch"] == 128 and config["work"]["tp_blocks"] == 8
    for command, layout, server in ((SERVE, "tp=4", "tp=4"), (WIDE, "tp=1,dp=16,ep=16", "dp=16,ep=16"), (SERVE, "tp=4,pp=2", "tp=4,pp=2")):
        assert flags(emit("tessera", command, "--layout", layout))["--layout"] == [server]
    host = tomllib.loads(emit("tessera", ["plan", "train", "--model", "qwen3-0.6b", "--cluster", "cpu", "--gpus", 2, "--seq",
                                          128, "--batch", 8]))
    degrees = [host["layout"].get(axis, 1) for axis in ("dp", "fsdp", "tp", "pp", "cp")]
    assert math.prod(degrees) == 2


@pytest.mark.parametrize("tool, command, more, words", [
    ("megatrn", TRAIN, [], ["megatrn", "megatron"]),
    ("vllm", TRAIN, [], ["training", "torchtitan"]),
    ("torchtitan", SMALL, ["--layout", "dp=8,pp=8,virtual_stages=3,recompute=full"], ["32", "24"]),
    ("deepspeed", TRAIN, ["--layout", "dp=4,tp=8,pp=2,virtual_stages=2"], ["virtual_stages=1"]),
    ("tensorrt-llm", WIDE, ["--layout", "tp=2,dp=8"], ["attention data parallelism", "tp=1"]),
    ("megatron", TRAIN, ["--json", "-"], ["--json"]),
    ("megatron", TRAIN, ["--space", "calculon"], ["--space"]),
])
def test_what_a_tool_would_refuse_is_one_line(run_tessera, tool, command, more, words):
    run = run_tessera(*command, *more, "--emit", tool)
    assert run.returncode != 0 and run.stdout == ""
    error = [line for line in run.stderr.splitlines() if line.startswith("error")]
    assert len(error) == 1 and all(word in error[0] for word in words), run.stderr
