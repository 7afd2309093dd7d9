"""Planning recommenders and sites through the command line: Persia's cluster, files, units, refusals."""
import itertools
import json
import textwrap

import pytest


def plan(run_tessera, *arguments):
    run = run_tessera("plan", *arguments, "--json", "-")
    return run, json.loads(run.stdout) if run.stdout else None


def single_error(run, *words):
    assert run.returncode != 0
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), run.stderr


def test_persias_cluster_has_an_answer_with_what_bounds_it(run_tessera):
    run, answer = plan(run_tessera, "recsys", "--model", "persia-100t", "--cluster", "persia-gcp", "--engine", "persia",
                       "--samples", "1e10", "--zipf", 0, "--batch", 2048)
    assert run.returncode == 0, run.stderr
    best = answer["results"][0]
    assert best["samples_per_s"] == pytest.approx(1.85e6, rel=0.1)
    assert best["bound_by"] == "trainers" and best["layout"]["trainers"] == 64
    assert max(best["step_parts_s"].values()) == pytest.approx(best["step_time_s"])
    assert answer["rows"]["addressed"] == pytest.approx(7.8125e11, rel=1e-3)
    assert answer["rows"]["resident"] < 0.5 * answer["rows"]["addressed"]
    assert answer["search"]["evaluated"] > 1e4 and answer["search"]["seconds"] < 30
    rates = [one["samples_per_s"] for one in answer["results"]]
    assert rates == sorted(rates, reverse=True)


def test_a_model_too_big_says_by_how_much(run_tessera):
    run, answer = plan(run_tessera, "recsys", "--model", "persia-100t", "--cluster", "persia-gcp")
    assert run.returncode == 1 and answer["results"] == []
    assert answer["infeasible"][0]["available"] == pytest.approx(10800) and answer["infeasible"][0]["needed"] > 10800


def test_a_demand_is_met_at_the_least_cost(run_tessera):
    run, answer = plan(run_tessera, "recsys", "--model", "dlrm", "--cluster", "a100-80g", "--gpus", 16, "--samples-per-s", "1e6",
                       "--objective", "cost")
    assert run.returncode == 0, run.stderr
    costs = [one["usd_per_billion_samples"] for one in answer["results"]]
    assert costs == sorted(costs) and all(one["samples_per_s"] >= 1e6 for one in answer["results"])


def test_a_file_describes_mixed_pools_and_a_model(run_tessera, tmp_path):
    model, cluster = tmp_path / "model.toml", tmp_path / "cluster.toml"
    model.write_text('[mine]\nrows = [1e6, 2e7]\ndim = 32\npooling = [1, 20]\ndense_features = 8\ntop = [256, 1]\n')
    cluster.write_text('name = "two"\n[[pool]]\nrole = "trainers"\ncluster = "l40s"\nhosts = 1\ndevices_per_host = 2\n' + "".join(
        f'[[pool]]\nrole = "{role}"\nhosts = 2\ncores = 16\nmemory_bytes = 64e9\nnetwork_bytes_per_s = 3e9\n' for role in ("workers", "servers")))
    run, answer = plan(run_tessera, "recsys", "--model", model, "--cluster", cluster)
    assert run.returncode == 0, run.stderr
    assert answer["results"][0]["layout"]["trainers"] <= 2
    cluster.write_text(cluster.read_text().replace("cores", "core"))
    single_error(run_tessera("plan", "recsys", "--model", model, "--cluster", cluster), "'core'", "did you mean 'cores'")


@pytest.mark.parametrize("wrong, words", [
    ("rows = [-1]\ndim = 8\n", ["rows"]), ("rows = []\ndim = 8\n", ["rows"]), ("rows = [9]\ndmi = 8\n", ["did you mean 'dim'"]),
    ("rows = [9]\ndim = 8\npooling = [1, 2]\n", ["pooling"]), ("rows = [9]\n", ["dim"]), ("rows = [\n", ["toml"]),
])
def test_a_wrong_model_file(run_tessera, tmp_path, wrong, words):
    path = tmp_path / "model.toml"
    path.write_text("[mine]\n" + wrong)
    single_error(run_tessera("plan", "recsys", "--model", path, "--cluster", "h100"), *words)


@pytest.mark.parametrize("arguments, words", [
    (["--model", "dlr", "--cluster", "h100"], ["did you mean 'dlrm'"]),
    (["--model", "dlrm", "--cluster", "h1000"], ["did you mean 'h100'"]),
    (["--model", "dlrm", "--cluster", "h100", "--engine", "teserra"], ["did you mean 'tessera'"]),
    (["--model", "dlrm", "--cluster", "h100", "--layout", "servers=0"], ["servers", "at least 1"]),
    (["--model", "dlrm", "--cluster", "h100", "--layout", "servers=65"], ["65", "1 to 64"]),
    (["--model", "dlrm", "--cluster", "h100", "--gpus", 12], ["12", "multiple"]),
    (["--model", "dlrm", "--cluster", "persia-gcp", "--gpus", 65], ["64 devices"]),
    (["--model", "dlrm", "--cluster", "h100", "--objective", "price"], ["throughput, cost or energy"]),
    (["--model", "dlrm", "--cluster", "h100", "--optimizer", "lamb"], ["adagrad"]),
])
def test_a_wrong_request_is_one_readable_line(run_tessera, arguments, words):
    single_error(run_tessera("plan", "recsys", *arguments), *words)


def test_five_gigawatts(run_tessera):
    run, answer = plan(run_tessera, "facility", "--cluster", "gb200-nvl72", "--power", "5GW")
    assert run.returncode == 0, run.stderr
    assert answer["devices"] == pytest.approx(2.38e6, rel=0.01) and answer["domains"] == pytest.approx(33000, rel=0.01)
    assert answer["failures_per_day"] == pytest.approx(sum(answer["failures_per_day_by_cause"].values()))


@pytest.mark.parametrize("power, words", [("5", ["unit", "GW"]), ("5GWh", ["unit"]), ("-3MW", ["positive"]), ("100W", ["2100 W"])])
def test_power_with_a_wrong_unit_is_refused(run_tessera, power, words):
    single_error(run_tessera("plan", "facility", "--cluster", "gb200-nvl72", f"--power={power}"), *words)


def test_site_and_failures_change_what_they_should(run_tessera):
    base = ["train", "--model", "llama-3.1-8b", "--cluster", "h100", "--gpus", 64, "--seq", 8192, "--batch", 128, "--tokens", "1e12", "--top", 1]
    before = plan(run_tessera, *base)[1]["results"][0]
    clean = plan(run_tessera, *base, "--site", "grid_kg_per_kwh=0,price=1")[1]["results"][0]
    slow = plan(run_tessera, *base, "--failures", "restart_s=36000")[1]["results"][0]
    assert clean["co2_t"] == pytest.approx(clean["embodied_co2_t"]) and clean["co2_t"] < before["co2_t"]
    assert clean["cost_usd"] == pytest.approx(before["cost_usd"] / 2.5)
    assert slow["goodput"] < before["goodput"] and slow["time_to_train_h"] > before["time_to_train_h"]
    assert before["goodput"] + sum(before["lost"].values()) == pytest.approx(1)
    single_error(run_tessera("plan", *base, "--site", "puo=1"), "did you mean 'pue'")
    single_error(run_tessera("plan", *base, "--failures", "restart_s=15min"), "number")


def pools_of_the_page(root):
    page = (root / "docs/plan_recsys.md").read_text().split("## Clusters with pools")[1]
    lines = page[page.index("    name ="):].splitlines()
    return "\n".join(itertools.takewhile(lambda line: line.startswith("    "), lines))


def test_the_cluster_with_pools_of_the_page_is_planned_for(run_tessera, root, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(textwrap.dedent(pools_of_the_page(root)))
    run, answer = plan(run_tessera, "recsys", "--model", "dlrm", "--cluster", file)
    assert run.returncode == 0, run.stderr
    layout = answer["results"][0]["layout"]
    assert layout["trainers"] <= 32 and layout["workers"] <= 4 and layout["servers"] <= 10


@pytest.mark.parametrize("role", ["workers", "servers"])
def test_a_pool_that_is_missing_is_named(run_tessera, root, tmp_path, role):
    file = tmp_path / "mine.toml"
    head, *pools = textwrap.dedent(pools_of_the_page(root)).split("[[pool]]")
    file.write_text("[[pool]]".join([head, *(pool for pool in pools if f'role = "{role}"' not in pool)]))
    run, _ = plan(run_tessera, "recsys", "--model", "dlrm", "--cluster", file)
    single_error(run, f"no pool of {role}", str(file))
