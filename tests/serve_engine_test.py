"""The engine through HTTP: answers stay the same whatever happens to their cache blocks, and time limits hold."""
import json
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from serve_openai_test import GOOD, MODEL, PROMPT, Server, post

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no model at {MODEL}: set TESSERA_SHARED")

STORY = "Once upon a time there was a little girl who had a red ball. She played with it every day in the park, and "


def cached(answer):
    return answer.usage.prompt_tokens_details.cached_tokens


def test_a_known_prompt_comes_from_the_cache_with_the_same_answer(tessera):
    with Server(tessera, "--quiet") as server:
        for options in (dict(), dict(temperature=1, seed=4), dict(logprobs=3)):
            first = server.complete(STORY, max_tokens=40, **options)
            again = server.complete(STORY, max_tokens=40, **options)
            assert again.choices == first.choices
            assert cached(again) > again.usage.prompt_tokens / 2
        assert server.metric("prefix_cache_hits_total") < server.metric("prefix_cache_queries_total")
        assert server.metric("prefix_cache_hits_total") >= 2 * cached(again)
        server.wait_for("kv_cache_usage_perc", 0)


def test_a_conversation_finds_its_own_answers_in_the_cache(tessera):
    with Server(tessera, "--quiet") as server, Server(tessera, "--quiet") as fresh:
        first = server.complete(STORY, max_tokens=60)
        longer = STORY + first.choices[0].text + " The end. Then"
        second = server.complete(longer, max_tokens=40)
        assert cached(second) > first.usage.prompt_tokens
        assert second.choices == fresh.complete(longer, max_tokens=40).choices


def test_prompt_logprobs_are_complete_when_the_prompt_is_cached(tessera):
    with Server(tessera, "--quiet") as server:
        first, again = (server.complete(STORY, max_tokens=3, echo=True, logprobs=2) for _ in range(2))
        assert again.choices == first.choices and None not in again.choices[0].logprobs.token_logprobs[1:]
        assert cached(again) == 0


def mixed_jobs():
    """64 jobs: common and own beginnings, greedy and drawn, short and long."""
    return [dict(prompt=(STORY if i % 2 else "") + PROMPT + " there was a" * (i % 7), max_tokens=16 + 5 * (i % 32),
                 temperature=[0, 0.8, 1.2][i % 3], seed=i, logprobs=2 if i % 5 == 0 else None) for i in range(64)]


def test_64_requests_at_once_five_times_give_one_answer_each(tessera):
    """Few blocks: chunks, hits, evictions and preemptions differ from time to time; the answers do not."""
    jobs = mixed_jobs()
    with Server(tessera, "--quiet", "--max-batch-tokens", "48", "--kv-tokens", "640", "--max-running", "24") as server:
        answers = [server.complete(**job).choices for job in jobs]
        for _ in range(5):
            with ThreadPoolExecutor(64) as pool:
                assert list(pool.map(lambda job: server.complete(**job).choices, jobs)) == answers
        assert server.metric("num_preemptions_total") > 0
        server.wait_for("kv_cache_usage_perc", 0)


@pytest.mark.parametrize("layout", ["tp=1", "tp=2"])
def test_guessed_tokens_change_no_answer(tessera, layout):
    jobs = mixed_jobs()[:24] + [dict(prompt=STORY, max_tokens=300, stop=["park"])]
    jobs += [dict(prompt="x y z " * 12, max_tokens=60, temperature=t, seed=1, echo=t > 0, logprobs=1) for t in (0, 0.7)]
    with Server(tessera, "--quiet") as plain:
        expected = [plain.complete(**job).choices for job in jobs]
    with Server(tessera, "--quiet", "--guess", "6", "--max-batch-tokens", "48", "--layout", layout) as server:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda job: server.complete(**job).choices, jobs)) == expected
        made = server.metric("spec_decode_num_draft_tokens_total")
        assert made > server.metric("spec_decode_num_accepted_tokens_total") > 20
        server.wait_for("kv_cache_usage_perc", 0)


def test_requests_past_their_time_end_with_504(tessera):
    body = {**GOOD, "max_tokens": 450, "ignore_eos": True}
    with Server(tessera, "--quiet", "--max-running", "1", "--queue-timeout", "0.05") as server:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: post(server, body), range(6)))
        assert {status for status, _ in answers} == {200, 504}
        assert "did not start" in next(a["error"]["message"] for status, a in answers if status == 504)
    with Server(tessera, "--quiet", "--request-timeout", "0.02") as server:
        status, answer = post(server, {**body, "n": 8})
        assert status == 504 and "did not end" in answer["error"]["message"]
        server.wait_for("kv_cache_usage_perc", 0)


def test_what_would_come_too_late_is_refused_at_once(tessera):
    """One at a time, each answer some tenths of a second: after the first ones the wait is known."""
    body = {**GOOD, "max_tokens": 300, "ignore_eos": True}
    with Server(tessera, "--quiet", "--max-running", "1", "--ttft-objective", "0.3") as server:
        for _ in range(3):
            assert post(server, body)[0] == 200

        def timed(_):
            start = time.monotonic()
            status, answer = post(server, body)
            return status, time.monotonic() - start, json.dumps(answer)

        with ThreadPoolExecutor(24) as pool:
            results = list(pool.map(timed, range(24)))
        refused = [r for r in results if r[0] == 429]
        assert refused and all("first token would come" in text for _, _, text in refused)
        assert any(status == 200 for status, _, _ in results)
