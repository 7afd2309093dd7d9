"""`tessera verify` on the examples: every layout of the promise, in both precisions.

Five steps each here; TESSERA_VERIFY_STEPS=20 runs the whole promise.
"""
import json
import os

import pytest

STEPS = os.environ.get("TESSERA_VERIFY_STEPS", "5")
LAYOUTS = ["dp=2", "dp=4", "fsdp=2", "fsdp=4", "tp=2", "tp=4", "pp=2", "pp=4", "fsdp=2,tp=2", "tp=2,pp=2", "dp=2,pp=2",
           "fsdp=2,tp=2,pp=2"]
CASES = [("dense-small", layout) for layout in [*LAYOUTS, "dp=3"]]
CASES += [("moe-small", layout) for layout in [*LAYOUTS, "fsdp=2,ep=2", "fsdp=4,ep=2", "fsdp=4,ep=4", "fsdp=2,pp=2,ep=2"]]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("example,layout", CASES)
def test_layout_is_bitwise_equal_to_one_process(run_tessera, root, example, layout, precision):
    result = run_tessera("verify", "--config", root / f"examples/{example}.toml", "--layout", "dp=1", "--against", layout,
                         "--json", "-", f"precision={precision}", f"train.steps={STEPS}")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["equal"] and answer["mode"] == "exact" and answer["precision"] == precision
    assert answer["hash"] == answer["hash_against"] and answer["first_difference"] is None
    assert answer["bytes_sent"] > 0 and answer["gradient_bytes_peak"] > 0


def test_fast_mode_stays_within_the_bound_and_is_not_exact(run_tessera, root):
    result = run_tessera("verify", "--config", root / "examples/dense-small.toml", "--against", "tp=2,pp=2", "--json", "-",
                         "numerics=fast", "train.steps=3")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["equal"] and all(0 < step["gradient_difference"] <= answer["bound"] for step in answer["steps"])


@pytest.mark.parametrize("against,words", [("tp=3", "tp_blocks"), ("pp=5", "layers"), ("dp=5", "micro-batches"),
                                           ("ep=2", "no experts"), ("cp=2", "cp=2"), ("tq=2", "did you mean")])
def test_layouts_that_do_not_fit_are_refused_by_name(run_tessera, root, against, words):
    result = run_tessera("verify", "--config", root / "examples/dense-small.toml", "--against", against)
    assert result.returncode == 1 and result.stderr.count("error:") == 1
    assert words in result.stderr, result.stderr
