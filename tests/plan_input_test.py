"""What a user may get wrong when planning: names, layouts, units, configurations. Each is one readable line and a failed status."""
import json

import pytest

TRAIN = ["plan", "train", "--model", "llama-3.1-8b", "--cluster", "h100"]
GIVEN = {"--gpus": 8, "--seq": 2048, "--batch": 8}


def single_error(run, *words):
    assert run.returncode != 0
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr + run.stdout
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize("changed, words", [
    ({"--gpus": 0}, ["0"]),
    ({"--gpus": "3.5"}, ["--gpus", "3.5", "plain"]),
    ({"--seq": 0}, ["--seq"]),
    ({"--seq": "2K"}, ["2K", "plain"]),
    ({"--seq": 9 * 10**18}, ["--seq"]),
    ({"--batch": 0}, ["batch", "0"]),
    ({"--tokens": "15T"}, ["15T", "15e12"]),
    ({"--tokens": "-3"}, ["--tokens"]),
    ({"--top": 0}, ["--top"]),
    ({"--layout": "tp=0"}, ["tp=0"]),
    ({"--layout": "tpp=2"}, ["tpp", "did you mean"]),
    ({"--layout": "tp=2,dp=8"}, ["16", "8"]),
    ({"--precision": "fp7"}, ["fp7", "did you mean 'fp8'"]),
    ({"--software": "bridge-26.05"}, ["bridge-26.05", "did you mean"]),
    ({"--model": "lama-3.1-8b"}, ["did you mean 'llama-3.1-8b'"]),
    ({"--cluster": "gb20-nvl72"}, ["did you mean 'gb200-nvl72'"]),
])
def test_a_wrong_training_request(run_tessera, changed, words):
    options = {"--model": "llama-3.1-8b", "--cluster": "h100", **GIVEN, **changed}
    single_error(run_tessera("plan", "train", *[f"{name}={value}" for name, value in options.items()]), *words)


@pytest.mark.parametrize("option, words", [
    ("--isl=0", ["--isl"]), ("--osl=-1", ["--osl"]), ("--gpus=0", ["at least one"]), ("--ttft-ms=-4", ["--ttft-ms"]),
    ("--concurrency=-3", ["--concurrency"]), ("--isl=8K", ["8K", "plain"]), ("--engine=vlm", ["did you mean 'vllm'"]),
    ("--precision=fp3", ["fp3"]), ("--objective=speed", ["speed", "rate", "energy"]), ("--percentile=p98", ["p98", "p99"]),
    ("--site=pues=1.2", ["pues", "did you mean 'pue'"]), ("--draft-tokens=-2", ["--draft-tokens"]), ("--acceptance=1.5", ["--acceptance"]),
    ("--cached-prefix=-1", ["--cached-prefix"]), ("--cached-prefix=2000", ["2000", "1024"]), ("--top=0", ["--top"]), ("--chunk=0", ["--chunk"]),
    ("--prefix-cache=4096", ["--prefix-cache", "--trace"]), ("--layout=tp=2,tp=4", ["tp", "twice"]), ("--layout=tp=2,ep=2", ["experts", "none"]),
    ("--layout=tp=16", ["16", "8"]), ("--layout=tpp=2", ["did you mean 'tp'"]), ("--engine-version=newest", ["newest", "0.19"]),
    ("--trace=nowhere.csv", ["nowhere.csv"]),
])
def test_a_wrong_serving_request(run_tessera, option, words):
    single_error(run_tessera("plan", "serve", "--model", "llama-3.1-8b", "--cluster", "h100", option), *words)


@pytest.mark.parametrize("options, words", [
    (["--concurrency=4", "--rate=2"], ["--concurrency", "--rate"]),
    (["--draft-tokens=0", "--acceptance=0.5"], ["--acceptance", "--draft-tokens"]),
])
def test_serving_options_that_contradict_each_other(run_tessera, options, words):
    single_error(run_tessera("plan", "serve", "--model", "llama-3.1-8b", "--cluster", "h100", *options), *words)


@pytest.mark.parametrize("line, words", [
    ("2023-11-16 18:17:05.0,,4", [":3", "TIMESTAMP"]), ("yesterday,20,4", [":3", "yesterday"]), ("2023-11-16 18:17:05.0,-20,4", [":3", "-20"]),
])
def test_a_trace_with_a_hole_names_its_line(run_tessera, tmp_path, line, words):
    trace = tmp_path / "trace.csv"
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5,10,3\n{line}\n")
    single_error(run_tessera("plan", "serve", "--model", "llama-3.1-8b", "--cluster", "h100", "--trace", trace), "trace.csv", *words)


def test_an_empty_serving_space_says_by_how_much(run_tessera):
    run = run_tessera("plan", "serve", "--model", "llama-3.1-405b", "--cluster", "h100", "--gpus", 1)
    assert run.returncode == 1 and "memory of one accelerator" in run.stdout and "85.9 GB" in run.stdout


@pytest.mark.parametrize("change, words", [
    ({"hidden_size": -4096}, ["hidden_size", "-4096"]),
    ({"hidden_size": "big"}, ["hidden_size"]),
    ({"hidden_size": None}, ["hidden_size"]),
    ({"num_hidden_layers": 10**9}, ["num_hidden_layers"]),
    ({"num_key_value_heads": 7}, ["num_key_value_heads", "32"]),
    ({"vocab_size": 0}, ["vocab_size"]),
    ({"num_local_experts": 16, "num_experts_per_tok": 40}, ["40", "16"]),
])
def test_an_absurd_configuration(run_tessera, tmp_path, change, words):
    config = {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
              "intermediate_size": 11008, **change}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    run = run_tessera("plan", "train", "--model", path, "--cluster", "h100", "--gpus", 8, "--seq", 2048, "--batch", 8)
    single_error(run, *words)


@pytest.mark.parametrize("wrong, words", [
    (("device_w = 700", "device_w = -1"), ["device_w", "-1"]),
    (("peak_fp8 = 1979e12", "peak_fp9 = 1979e12"), ["peak_fp9", "did you mean"]),
    (("devices = 256", "devices = 4"), ["leaf", "nvlink"]),
    (("pue = 1.15", "pue = 0.5"), ["pue", "at least 1"]),
    (("name = \"h100\"", "name = h100"), ["toml"]),
])
def test_a_wrong_cluster_file(root, run_tessera, tmp_path, wrong, words):
    text = (root / "src/plan/data/gpus/h100.toml").read_text()
    assert wrong[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text)
    whole = run_tessera(*TRAIN[:4], "--cluster", path, "--gpus", 8, "--seq", 2048, "--batch", 8)
    assert whole.returncode == 0, whole.stderr
    path.write_text(text.replace(wrong[0], wrong[1], 1))
    single_error(run_tessera(*TRAIN[:4], "--cluster", path, "--gpus", 8, "--seq", 2048, "--batch", 8), "mine.toml", *words)


def test_an_empty_space_says_so(run_tessera):
    run = run_tessera(*TRAIN, "--gpus", 7, "--seq", 2048, "--batch", 8)
    assert run.returncode == 1 and "nothing fits 7 x h100" in run.stdout + run.stderr
