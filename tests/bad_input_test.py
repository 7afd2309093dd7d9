"""Wrong input and a full disk through the commands of a training job: one error, a failed status, nothing lost."""
import shutil
import subprocess

import pytest


def launch(run_tessera, run_dir, *overrides, ranks=2, config="examples/dense-small.toml"):
    return run_tessera("launch", "-n", ranks, "--", "train", "--config", config, f"layout=dp={ranks}", f"train.run_dir={run_dir}",
                       "train.checkpoint_every=4", "train.keep=0", *overrides)


def hash_of_weights(folder):
    import hashlib

    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.usefixtures("at_root")
def test_a_disk_that_fills_up_during_a_save_costs_that_save_only(run_tessera, small_disk, tmp_path):
    failed = launch(run_tessera, small_disk / "run", "train.steps=12")
    single_error(failed, "No space left on device")
    saved = sorted(path.name for path in (small_disk / "run/checkpoints").iterdir())
    assert saved == ["step-4", "step-8"]
    for name in saved:
        assert run_tessera("checkpoint", "verify", small_disk / "run/checkpoints" / name).returncode == 0
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    resumed = launch(run_tessera, small_disk / "run", "train.steps=12")
    assert resumed.returncode == 0, resumed.stderr
    undisturbed = launch(run_tessera, tmp_path / "run", "train.steps=12")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert hash_of_weights(small_disk / "run/checkpoints/step-12") == hash_of_weights(tmp_path / "run/checkpoints/step-12")


@pytest.fixture
def at_root(root, monkeypatch):
    monkeypatch.chdir(root)


def single_error(result, *words):
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert word in errors[0], errors[0]


def test_a_mistyped_option_offers_the_nearest(run_tessera):
    single_error(run_tessera("tokenizer", "train", "--data", "x", "--vocab-siz", 256, "--out", "y"), "--vocab-siz", "did you mean")


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("overrides, words", [
    (["layout=dp=3"], ["dp=3", "3 processes"]),
    (["layout=tp=3"], ["tp=3"]),
    (["layout=fsdp=2,pp=3"], ["6 processes"]),
    (["optimizer.learning_rat=1"], ["learning_rat", "learning_rate"]),
    (["model.model_type=\"gpt9\""], ["gpt9"]),
    (["work.precision=float8"], ["float8"]),
    (["layout=dp=2", "data.source=files", "data.train=nowhere"], ["nowhere"]),
])
def test_a_wrong_setting_is_one_error_before_any_worker_starts(run_tessera, tmp_path, overrides, words):
    result = run_tessera("launch", "-n", 2, "--", "train", "--config", "examples/dense-small.toml", f"train.run_dir={tmp_path / 'run'}",
                         *overrides)
    single_error(result, *words)
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.usefixtures("at_root")
def test_a_torn_token_file_stops_training_with_its_name(run_tessera, tmp_path):
    text, tokens = tmp_path / "text", tmp_path / "tokens-train"
    text.write_text("one two three four five six seven eight nine ten\n" * 400)
    made = run_tessera("tokenizer", "train", "--data", text, "--vocab", 300, "--out", tmp_path / "tokenizer")
    assert made.returncode == 0, made.stderr
    packed = run_tessera("data", "pack", "--tokenizer", tmp_path / "tokenizer", "--data", text, "--out", tmp_path / "tokens", "--document-separator", "\n")
    assert packed.returncode == 0, packed.stderr
    whole = tokens.with_suffix(".bin").read_bytes()
    tokens.with_suffix(".bin").write_bytes(whole[:-7])
    result = run_tessera("train", "--config", "examples/dense-small.toml", "data.source=files", f"data.train={tokens}", "train.steps=2")
    single_error(result, "tokens")


@pytest.mark.usefixtures("at_root")
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run_tessera, tmp_path):
    assert launch(run_tessera, tmp_path / "run", "train.steps=8").returncode == 0
    newest = tmp_path / "run/checkpoints/step-8"
    file = next(newest.glob("optimizer*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 0x10
    file.write_bytes(data)
    result = launch(run_tessera, tmp_path / "run", "train.steps=8")
    assert result.returncode == 0, result.stderr
    assert "step-8" in result.stdout + result.stderr and "from step 4" in result.stdout + result.stderr


@pytest.mark.usefixtures("at_root")
def test_another_models_checkpoint_is_refused_once_for_all_ranks(run_tessera, tmp_path):
    assert launch(run_tessera, tmp_path / "run", "train.steps=4").returncode == 0
    saved = hash_of_weights(tmp_path / "run/checkpoints/step-4")
    single_error(launch(run_tessera, tmp_path / "run", "train.steps=8", "model.intermediate_size=256"), "gate_proj", "128", "256")
    assert hash_of_weights(tmp_path / "run/checkpoints/step-4") == saved


@pytest.mark.usefixtures("at_root")
def test_a_flipped_bit_in_a_weight_is_named_by_who_would_serve_it(run_tessera, tmp_path):
    text = tmp_path / "text"
    text.write_text("one two three four five six seven eight nine ten\n" * 400)
    assert run_tessera("tokenizer", "train", "--data", text, "--vocab", 300, "--out", tmp_path).returncode == 0
    assert launch(run_tessera, tmp_path / "run", "train.steps=4", "model.vocab_size=320").returncode == 0
    checkpoint = tmp_path / "run/checkpoints/step-4"
    shutil.copy(tmp_path / "tokenizer.json", checkpoint)
    generate = ["generate", "--model", checkpoint, "--tokens", "1,2,3", "--max-tokens", 2]
    assert run_tessera(*generate).returncode == 0
    file = next(checkpoint.glob("model*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 0x10
    file.write_bytes(data)
    for command in generate, ["serve", "--model", checkpoint, "--port", 0]:
        single_error(run_tessera(*command), file.name, "manifest says")
