"""Runs of `tessera recsys train` in one process, which jobs of several roles are compared with."""
import json
import subprocess

import pytest


def bits(folder):
    """Weights, rows, quality and numbers of rows."""
    result = json.loads((folder / "result.json").read_text())
    return result["weights_hash"], result["rows_hash"], result["test_auc"], [group["rows"] for group in result["groups"]]


@pytest.fixture(scope="session")
def config(root):
    return root / "examples/recsys/synthetic.toml"


@pytest.fixture(scope="session")
def alone(tessera, config, tmp_path_factory):
    """The bits of one process, by configuration."""
    known = {}

    def run(words):
        if tuple(words) not in known:
            folder = tmp_path_factory.mktemp("alone")
            # Where gradients may be late is a question of the checkpoints too.
            saves = [f"train.run_dir={folder}", "train.keep=1"] if any("checkpoint_every" in word for word in words) else []
            command = [tessera, "recsys", "train", "--config", config, "--hash", "--json", folder / "result.json", *words, *saves]
            subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=300)
            known[tuple(words)] = bits(folder)
        return known[tuple(words)]
    return run
