"""A small soak: many requests, half of them cancelled anywhere, a worker killed on the way. bench/serve/soak.py is the long one."""
import argparse
import asyncio
import os
import sys

import pytest

from serve_openai_test import MODEL, ROOT

sys.path.insert(0, str(ROOT / "bench/serve"))
import soak  # noqa: E402

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")


def test_cancels_and_a_killed_worker_leave_no_block_and_no_wrong_answer(tessera):
    requests = int(os.environ.get("TESSERA_SOAK_REQUESTS", 600))
    result = asyncio.run(soak.measure(argparse.Namespace(
        tessera=tessera, model=MODEL, requests=requests, concurrency=48, layout="tp=2", kills=1, seed=5)))
    assert result["failed"] == result["wrong"] == 0
    assert result["cancelled"] > requests / 3 and result["worker_losses"] == 1
    assert result["blocks_free_after_s"] < 1
    # 50 ms beyond a step, and the time of one /metrics on a busy machine
    assert result["cancel_to_free_ms"]["median"] < 50 + result["step_ms"] + 50
