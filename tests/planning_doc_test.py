"""docs/planning.md: every command runs, and the JSON has the keys that the page says."""
import json
import re
import shlex

import pytest

PAGE = "docs/planning.md"


def commands(root):
    return [line.strip() for line in (root / PAGE).read_text().splitlines() if line.startswith("    tessera plan ")]


def test_every_command_of_the_page_runs_within_a_few_seconds(root, run_tessera, tmp_path):
    (tmp_path / "data").symlink_to(root / "data")
    assert len(commands(root)) > 10
    for command in commands(root):
        run = run_tessera(*shlex.split(command)[1:], cwd=tmp_path, timeout=20)
        assert run.returncode == 0 and run.stdout, f"{command}\n{run.stderr}"
    assert {page.name for page in tmp_path.glob("*.html")} == {"llama.html", "moe.html"}


def section(root, name):
    return (root / PAGE).read_text().split(f"### `{name}`")[1].split("\n#")[0]


def table_keys(text):
    return {key for line in text.splitlines() if line.startswith("| `") for key in re.findall(r"`(\w+)`", line.split("|")[1])}


TRAIN = ["plan", "train", "--seq", 512, "--batch", 16, "--json", "-"]


@pytest.mark.parametrize("more, only", [(["--model", "llama-3.1-8b", "--cluster", "h100", "--gpus", 8], "GPU clusters only"),
                                        (["--model", "qwen3-0.6b", "--cluster", "cpu", "--gpus", 2], "Hosts only")])
def test_training_json_has_the_keys_of_the_page(root, run_tessera, more, only):
    text = section(root, "plan train")
    answer = json.loads(run_tessera(*TRAIN, *more).stdout)
    result = answer["results"][0]
    listed = re.sub(r"\([^)]*\)", "", re.search(rf"{only}:(.*?)\.(?: |\n|$)", text, flags=re.S)[1])
    assert set(result) == table_keys(text) | set(re.findall(r"`(\w+)`", listed))
    said = re.search(r"\| `layout` \|(.*)", text)[1].split(";")[0]
    assert set(re.findall(r"`(\w+)`", said)) <= set(result["layout"])
    said = re.search(r"\| `breakdown` \|(.*)", text)[1]
    assert set(re.findall(r"`(\w+)`", said)) == set(result["breakdown"])
    assert {"space", "evaluated", "pruned", "seconds"} <= set(answer["search"])
    assert answer["search"]["evaluated"] + answer["search"]["pruned"] == answer["search"]["space"]


def test_serving_json_has_the_keys_of_the_page(root, run_tessera):
    run = run_tessera("plan", "serve", "--model", "llama-3.1-8b", "--cluster", "h100", "--gpus", 2, "--json", "-")
    listed = table_keys(section(root, "plan serve"))
    listed |= {key + end for key in ("ttft_ms", "tpot_ms", "tok_s_gpu") for end in ("_low", "_high")}
    for result in json.loads(run.stdout)["results"]:
        extra = {"decode_layout", "decode_memory_gb", "transfer_ms"} if result["mode"] == "disaggregated" else set()
        assert set(result) - {"simulated"} == listed | extra


def test_text_says_interval_sources_and_why_the_next_loses(run_tessera):
    train = run_tessera("plan", "train", "--model", "llama-3.1-8b", "--cluster", "h100", "--gpus", 8, "--seq", 512, "--batch", 16).stdout
    assert re.search(r"step .* \(.* to .*, 90 %\)", train) and "assumed: embodied_kg" in train and "% time: +" in train
    serve = run_tessera("plan", "serve", "--model", "llama-3.1-8b", "--cluster", "h100", "--gpus", 2).stdout
    assert re.search(r"best, in 90 of 100 published rows: \S+ to \S+ tok/s/GPU", serve) and "% less, most in" in serve
