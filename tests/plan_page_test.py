"""The pages of plans: offline, complete, and drawn from the figures of the plan."""
import json
import re
import shutil
import subprocess

import pytest

TRAIN = ["plan", "train", "--model", "llama-3.1-70b", "--cluster", "h100", "--gpus", 256, "--seq", 8192, "--batch", 512]
SERVE = ["plan", "serve", "--model", "deepseek-v3", "--cluster", "h200", "--gpus", 16, "--isl", 4096, "--osl", 512]


RECSYS = ["plan", "recsys", "--model", "dlrm", "--cluster", "h100", "--gpus", 8]


@pytest.fixture(scope="module")
def pages(run_tessera, tmp_path_factory):
    """{"train" or "serve": (text of the page, figures in it, JSON of the plan)}"""
    made = {}
    for name, command in (("train", TRAIN + ["--tokens", "1e12"]), ("serve", SERVE), ("recsys", RECSYS)):
        path = tmp_path_factory.mktemp(name) / "plan.html"
        run = run_tessera(*command, "--html", path, "--json", "-")
        assert run.returncode == 0, run.stderr
        text = path.read_text()
        figures = json.loads(re.search(r"<script>const plan = (.*);</script>", text)[1])
        made[name] = path, text, figures, json.loads(run.stdout)
    return made


@pytest.mark.parametrize("name", ["train", "serve", "recsys"])
def test_page_leaves_for_nothing(pages, name):
    _, text, _, _ = pages[name]
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import", outside)
    assert "<script src" not in text


def test_training_figures_are_those_of_the_plan(pages):
    _, text, figures, plan = pages["train"]
    best = plan["results"][0]
    stages = [sum(row) for row in figures["memory"]["rows"]]
    assert stages == pytest.approx(best["memory_gib"]["by_stage"], rel=1e-3)
    for row, result in zip(figures["time"]["rows"], plan["results"], strict=True):
        assert dict(zip(figures["time"]["parts"], row)) == pytest.approx(result["breakdown"], rel=1e-3, abs=1e-9)
    assert figures["money"]["rows"] == pytest.approx([r["cost_usd"] for r in plan["results"]], rel=1e-3)
    assert figures["energy"]["rows"] == pytest.approx([r["energy_mwh"] for r in plan["results"]], rel=1e-3)
    for result in plan["results"]:
        assert result["layout"]["text"].replace(",", ",<wbr>") in text


def test_cloud_holds_the_best_and_its_front_is_a_front(pages):
    _, _, figures, plan = pages["train"]
    assert {point[0] for point in figures["points"]} == {64, 128, 256, 512, 1024}
    own = [point for point in figures["points"] if point[0] == 256]
    fastest = min(point[1] for point in own if point[5])
    # The cloud is timed by closed forms, the ranking by the schedule's table.
    assert fastest == pytest.approx(plan["results"][0]["time_to_train_h"] / 24, rel=0.03)
    days, usd = [point[1] for point in figures["front"]], [point[2] for point in figures["front"]]
    assert len(days) > 1 and days == sorted(days) and usd == sorted(usd, reverse=True)


def test_timeline_is_a_schedule_that_could_run(run_tessera, tmp_path):
    path = tmp_path / "plan.html"
    run = run_tessera(*TRAIN, "--layout", "dp=8,tp=8,pp=4,virtual_stages=2", "--html", path)
    assert run.returncode == 0, run.stderr
    figures = json.loads(re.search(r"<script>const plan = (.*);</script>", path.read_text())[1])
    stages, end = figures["timeline"]["stages"], {}
    assert len(stages) == 4
    for stage, boxes in enumerate(stages):
        assert len(boxes) == 2 * 2 * 64  # both directions of both chunks of each of 512 / 8 micro-batches
        assert all(a[4] <= b[3] + 1e-3 for a, b in zip(boxes, boxes[1:])), "a stage does one thing at a time"
        end |= {(kind, chunk * 4 + stage, micro): stop for kind, chunk, micro, _, stop, _ in boxes}
    for stage, boxes in enumerate(stages):
        for kind, chunk, micro, start, _, _ in boxes:
            piece = chunk * 4 + stage
            before = (0, piece - 1, micro) if kind == 0 else (1, piece + 1, micro) if piece < 7 else (0, 7, micro)
            assert before not in end or end[before] <= start + 1e-3


def test_timeline_draws_pairs_of_dualpipe(run_tessera, tmp_path):
    path = tmp_path / "plan.html"
    run = run_tessera(*TRAIN, "--layout", "dp=8,tp=8,pp=4,schedule=dualpipe", "--html", path)
    assert run.returncode == 0, run.stderr
    figures = json.loads(re.search(r"<script>const plan = (.*);</script>", path.read_text())[1])
    for boxes in figures["timeline"]["stages"]:
        pairs = [(a, b) for a, b in zip(boxes, boxes[1:]) if a[5] and a[0] == 0]
        assert len(pairs) > 40 and all(b[5] and b[0] == 1 and a[3:5] == b[3:5] for a, b in pairs)
        assert sum(box[0] == 2 for box in boxes) == sum(box[0] == 3 for box in boxes) > 0


def test_recommender_figures_are_those_of_the_plan(pages):
    _, text, figures, plan = pages["recsys"]
    best = plan["results"][0]
    assert figures["usd"] == pytest.approx([one["usd_per_billion_samples"] for one in plan["results"]], rel=1e-3)
    assert figures["kwh"] == pytest.approx([one["kwh_per_billion_samples"] for one in plan["results"]], rel=1e-3)
    needs = dict(zip(figures["needs"]["names"], (row[0] / 1000 for row in figures["needs"]["rows"]), strict=True))
    assert needs == pytest.approx(best["step_parts_s"], rel=1e-3)
    front = figures["front"]
    assert [p[0] for p in front] == sorted(p[0] for p in front) and [p[1] for p in front] == sorted(p[1] for p in front)
    assert max(p[1] for p in figures["servers"] + figures["trainers"]) == pytest.approx(best["samples_per_s"], rel=1e-3)
    rates = [point[1] for point in figures["staleness"]]
    assert rates == sorted(rates) and len(rates) == 5
    assert best["layout"]["text"].replace(",", ",<wbr>") in text


def test_serving_figures_are_those_of_the_plan(pages):
    _, _, figures, plan = pages["serve"]
    assert figures["money"]["usd"] == pytest.approx([r["cost_usd_per_mtok"] for r in plan["results"]], rel=1e-3)
    assert figures["money"]["joules"] == pytest.approx([r["energy_j_per_token"] for r in plan["results"]], rel=1e-3)
    for row, result in zip(figures["time"]["rows"], plan["results"], strict=True):
        assert sum(row) == pytest.approx(sum(result["breakdown_ms"].values()), rel=1e-3)
    first = plan["results"][0]["memory_gb"]
    assert figures["memory"]["rows"][0] == pytest.approx([first[k] for k in ("weights", "workspace", "cache")], rel=1e-3)
    assert len(figures["front"]) == len(plan["pareto"])


def test_a_plan_without_an_answer_still_makes_a_page(run_tessera, tmp_path):
    path = tmp_path / "plan.html"
    run = run_tessera("plan", "train", "--model", "llama-3.1-405b", "--cluster", "h100", "--gpus", 8, "--seq", 8192,
                      "--batch", 8, "--html", path)
    assert run.returncode == 1 and "Nothing fits" in path.read_text()


@pytest.mark.parametrize("name, charts", [("train", 6), ("serve", 4), ("recsys", 5)])
def test_a_browser_draws_every_picture(pages, name, charts):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here")
    path, text, _, _ = pages[name]
    # Errors of the page's scripts become text that the dump shows.
    watched = path.with_name("watched.html")
    watched.write_text(text.replace("<body>", "<body><script>onerror = (m) => document.title = 'broken: ' + m</script>", 1))
    run = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
                          "--dump-dom", watched.as_uri()], capture_output=True, text=True, timeout=120)
    if "</html>" not in run.stdout:
        pytest.skip("Chromium does not start here")
    assert "<title>broken" not in run.stdout
    body = re.sub(r"<script>.*?</script>", "", run.stdout, flags=re.S)
    drawn = re.findall(r'<div class="chart" id="([\w-]+)".*?<svg.*?</svg>', body, flags=re.S)
    assert len(drawn) == charts
