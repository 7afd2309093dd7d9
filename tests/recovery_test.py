"""`tessera drill` and `tessera launch` with the real trainer: faults, mistakes and signals."""
import json
import os
import pathlib
import signal
import subprocess

FAULTS = ["kill_worker", "kill_all", "stop_worker", "no_spare", "kill_during_save"]


def test_every_row_of_the_drill_recovers_with_equal_weights(run_tessera):
    result = run_tessera("drill", "--json", "-", timeout=240)
    assert result.returncode == 0, result.stderr
    rows = {row["fault"]: row for row in json.loads(result.stdout)["rows"]}
    assert sorted(rows) == sorted(FAULTS)
    assert all(row["recovered"] and row["weights_equal"] for row in rows.values())
    assert rows["kill_worker"]["source"] == "memory" and rows["kill_worker"]["steps_redone"] <= 5
    assert rows["kill_worker"]["detect_s"] < 2 and rows["kill_worker"]["resume_s"] < 10
    assert rows["stop_worker"]["detect_s"] < 5
    assert "step" in rows["stop_worker"]["detail"] and "rank 1" in rows["stop_worker"]["detail"]
    assert rows["kill_all"]["source"] == "disk"


def test_worker_killed_from_outside_is_named_and_replaced(tessera, root, tmp_path):
    run = subprocess.Popen(
        [tessera, "launch", "-n", "2", "--run-dir", tmp_path, "--", "train", "--config",
         root / "examples/moe-small.toml", "layout=fsdp=2", "train.steps=60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in run.stderr:
        if "started at step 0" in line:
            break
    children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["formed", "started", "lost", "formed", "resumed", "finished"]
    lost, resumed = events[2], events[4]
    assert lost["rank"] == 1 and lost["detect_s"] < 2
    assert resumed["source"] == "memory" and resumed["steps_redone"] <= 5


def test_mistake_in_the_configuration_is_one_readable_error(run_tessera, root):
    result = run_tessera("launch", "-n", 2, "--", "train", "--config", root / "examples/moe-small.toml",
                         "optimizer.learnin_rate=1")
    assert result.returncode != 0
    assert result.stderr.count("learnin_rate") == 1, result.stderr


def test_launching_something_that_is_no_training_says_so(run_tessera):
    result = run_tessera("launch", "-n", 1, "--", "--version")
    assert result.returncode != 0
    assert "before it joined the job" in result.stderr
