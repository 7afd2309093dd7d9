"""Checkpoints as others read them: safetensors, transformers; and `tessera checkpoint`."""
import json
import os
import shutil
import subprocess

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

ARCHITECTURES = ["llama", "qwen3", "mixtral", "qwen3_moe"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
CASES = [(a, p) for a in ARCHITECTURES for p in DTYPES]


@pytest.fixture(scope="module")
def written(root, tmp_path_factory):
    """Checkpoints of every architecture, saved by four ranks; bf16 ones in many small files."""
    folder = tmp_path_factory.mktemp("checkpoints")
    program = root / "build/release/checkpoint_test"
    assert program.exists(), f"{program} is not built: run ./test"
    subprocess.run([program, "--gtest_filter=ForPython.*", "--gtest_also_run_disabled_tests", "--gtest_brief=1"],
                   env={**os.environ, "TESSERA_TEST_OUTPUT": str(folder)}, check=True, timeout=120)
    return folder


@pytest.fixture
def one(written, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(written / "llama-bf16" / "step-1", tmp_path / "step-1")


def load_all(folder, prefix):
    tensors = {}
    for file in sorted(folder.glob(f"{prefix}*.safetensors")):
        tensors.update(load_file(file))
    return tensors


@pytest.mark.parametrize("architecture, precision", CASES)
def test_safetensors_reads_every_file_and_weights_are_rounded_masters(written, architecture, precision):
    folder = written / f"{architecture}-{precision}" / "step-1"
    weights, states = load_all(folder, "model"), load_all(folder, "optimizer")
    assert len(list(folder.glob("model*.safetensors"))) > (1 if precision == "bf16" else 0)
    assert len(states) == 3 * len(weights) > 0
    for name, weight in weights.items():
        master = states[f"{name}.master"]
        assert master.dtype == torch.float32 and weight.dtype == DTYPES[precision]
        assert torch.equal(weight, master.to(weight.dtype)), name
        assert master.std() > 0.2 and not torch.equal(master, states[f"{name}.exp_avg"])
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}


@pytest.mark.parametrize("architecture, precision", CASES)
def test_transformers_loads_every_weight_in_its_place(written, tmp_path, architecture, precision):
    from transformers import AutoModelForCausalLM

    folder = written / f"{architecture}-{precision}" / "step-1"
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert model.config.model_type == architecture and model.dtype == DTYPES[precision]
    # What transformers writes back must be what we wrote: names, shapes and bits.
    model.save_pretrained(tmp_path)
    ours, theirs = load_all(folder, "model"), load_all(tmp_path, "model")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(7)[None]).logits).all()


def test_inspect_lists_tensors_step_and_layout(run_tessera, one):
    result = run_tessera("checkpoint", "inspect", one, "--json", "-")
    assert result.returncode == 0, result.stderr
    value = json.loads(result.stdout)
    weights = load_all(one, "model")
    assert value["step"] == 1 and value["layout"] == "fsdp=2,tp=2" and value["precision"] == "bf16"
    assert value["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert {row["tensor"]: row["shape"] for row in value["arrays"]} == {n: list(t.shape) for n, t in weights.items()}
    assert "model.norm.weight" in result.stderr


def test_inspect_and_verify_take_the_newest_of_a_run(run_tessera, written):
    assert "step-1" in run_tessera("checkpoint", "inspect", written / "llama-bf16").stdout
    result = run_tessera("checkpoint", "verify", written / "llama-bf16")
    assert result.returncode == 0 and "intact" in result.stdout


def test_verify_names_file_and_tensor_of_a_flipped_bit(run_tessera, one):
    file = sorted(one.glob("model-*.safetensors"))[1]
    with safe_open(file, "pt") as opened:
        names = list(opened.keys())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = run_tessera("checkpoint", "verify", one, "--json", "-")
    assert result.returncode != 0
    value = json.loads(result.stdout)
    assert not value["intact"] and len(value["damages"]) == 1
    assert file.name in result.stderr and any(name in result.stderr for name in names)
    assert "but the manifest says" in result.stderr


@pytest.mark.parametrize("damage, says", [
    (lambda d: next(d.glob("optimizer-*")).unlink(), "is missing"),
    (lambda d: os.truncate(next(d.glob("model-*")), 100), "has 100 bytes"),
    (lambda d: (d / "manifest.json").unlink(), "manifest.json is missing"),
    (lambda d: (d / "config.json").write_text("{}"), "config.json has 2 bytes"),
])
def test_verify_refuses_what_is_not_whole(run_tessera, one, damage, says):
    damage(one)
    result = run_tessera("checkpoint", "verify", one)
    assert result.returncode != 0 and says in result.stderr and len(result.stderr.splitlines()) == 1


def test_export_to_float32_gives_the_masters_to_transformers(run_tessera, one, tmp_path):
    from transformers import AutoModelForCausalLM

    result = run_tessera("checkpoint", "export", one, "--to", tmp_path / "out", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    masters = load_all(one, "optimizer")
    for name, tensor in load_all(tmp_path / "out", "model").items():
        assert torch.equal(tensor, masters[f"{name}.master"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.float32
    again = run_tessera("checkpoint", "export", one, "--to", tmp_path / "out")
    assert again.returncode != 0 and "exists already" in again.stderr


def test_reshard_keeps_every_value(run_tessera, one, tmp_path):
    result = run_tessera("checkpoint", "reshard", one, "--to", tmp_path / "out", "--max-file-gib", "1")
    assert result.returncode == 0, result.stderr
    assert run_tessera("checkpoint", "verify", tmp_path / "out").returncode == 0
    for prefix in ("model", "optimizer"):
        ours, theirs = load_all(one, prefix), load_all(tmp_path / "out", prefix)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
