"""`tessera launch -- recsys train`: roles in processes of their own, the bits of one process, also when they are killed."""
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from recsys_runs import alone, bits, config  # noqa: F401 (fixtures)

RUN = ["data.slots=40,500,12", "data.numbers=4", "data.train_rows=6400", "data.test_rows=1000", "train.batch=32",
       "train.parts=2", "embedding.dim=8", "model.top=32,16", "model.bottom=16,8", "train.staleness=3", "train.threads=1",
       "train.deterministic=true"]
SYNC = RUN[:-1] + ["train.mode=sync"]


@pytest.fixture(scope="session")
def launch(tessera, config):
    def run(folder, words, *options, environment=None):
        command = [tessera, "launch", "--run-dir", folder, *options, "--", "recsys", "train", "--config", config, "--hash",
                   "--json", folder / "result.json", *words]
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=180,
                              env={**os.environ, **(environment or {})})
    return run


def events(folder, kind):
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.mark.parametrize("words", [RUN, SYNC], ids=["deterministic hybrid", "sync"])
@pytest.mark.parametrize("servers,trainers", [(1, 1), (2, 2)])
def test_roles_give_the_bits_of_one_process(launch, alone, tmp_path, words, servers, trainers):
    result = launch(tmp_path, [*words, f"train.servers={servers}"], "-n", str(trainers))
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == alone(words)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_packed_messages_and_a_cache_change_no_bit(launch, alone, tmp_path):
    result = launch(tmp_path, [*RUN, "train.servers=2", "wire.compress=true", "wire.cache_rows=300"], "-n", "2")
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == alone(RUN)
    told = result_of(tmp_path)
    assert told["wire"]["bytes"] < told["wire"]["raw_bytes"] and told["cache"]["gets"] > 0


def test_few_bits_between_processes_are_those_of_one_process(launch, alone, tmp_path):
    few = [*RUN, "wire.compress=true", "wire.rows=int8", "wire.gradients=bf16"]
    result = launch(tmp_path, few)
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == alone(few) != alone(RUN)
    assert result_of(tmp_path)["wire"]["ratio"] > 2
    assert abs(bits(tmp_path)[2] - alone(RUN)[2]) < 0.02


def test_pooled_rows_in_half_the_bytes(launch, alone, tmp_path):
    result = launch(tmp_path, [*RUN, "wire.pooled=bf16"])
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path)[0] != alone(RUN)[0]
    assert abs(bits(tmp_path)[2] - alone(RUN)[2]) < 0.02


def test_a_cache_serves_within_the_bound(launch, tmp_path):
    hybrid = [word for word in RUN if "deterministic" not in word]
    result = launch(tmp_path, [*hybrid, "train.epochs=3", "wire.cache_rows=1000"])
    assert result.returncode == 0, result.stderr
    assert result_of(tmp_path)["cache"]["hits"] > 0


def test_rows_on_disk_survive_their_server(launch, alone, tmp_path):
    words = [*RUN, "train.epochs=8", "embedding.memory_bytes=25000", f"embedding.disk={tmp_path / 'rows'}"]
    left = tmp_path / "rows/server-0/default.disk"
    left.parent.mkdir(parents=True)
    left.write_text("of an earlier job")
    result = launch(tmp_path, words, "--fault", "server:0:kill@150", "--fault", "worker:0:kill@160")
    assert result.returncode == 0, result.stderr
    group = result_of(tmp_path)["groups"][0]
    assert group["disk_rows"] > 0 and group["returned_from_disk"] > 0 and group["evicted"] == 0
    weights, _, auc, _ = bits(tmp_path)
    # A repeated look-up may count as a later visit, so the words of LRU in the records may differ; values do not.
    assert (weights, auc) == (alone([*RUN, "train.epochs=8"])[0], alone([*RUN, "train.epochs=8"])[2])


def test_a_disk_without_a_bound_of_memory_is_explained(launch, tmp_path):
    result = launch(tmp_path, [*RUN, f"embedding.disk={tmp_path}"])
    assert result.returncode != 0 and "embedding.memory_bytes" in result.stderr


def test_another_seed_gives_other_bits(alone):
    assert alone(RUN)[:2] != alone([*RUN, "train.seed=2"])[:2]


@pytest.mark.parametrize("role", ["server:1", "worker:0", "loader", "trainer:0", "trainer:1"])
def test_a_killed_role_changes_no_bit(launch, alone, tmp_path, role):
    words = [*RUN, "train.epochs=8"]
    result = launch(tmp_path, [*words, "train.servers=2"], "-n", "2", "--fault", f"{role}:kill@150")
    assert result.returncode == 0, result.stderr
    lost, resumed = events(tmp_path, "lost"), events(tmp_path, "resumed")
    assert [event["detail"].split()[0] for event in lost] == [role]
    assert len(resumed) == 1 and resumed[0]["resume_s"] < 10
    assert bits(tmp_path) == alone(words)


def test_a_stopped_server_is_named_and_replaced(launch, alone, tmp_path):
    words = [*RUN, "train.epochs=8"]
    report = tmp_path / "report.html"
    result = launch(tmp_path, [*words, "train.servers=2", f"train.run_dir={tmp_path}", "--report", report], "--fault",
                    "server:0:stop@100")
    assert result.returncode == 0, result.stderr
    assert "server:0 gave no sign of life" in result.stderr
    assert "server:0 gave no sign of life" in report.read_text()
    assert bits(tmp_path) == alone(words)


def test_a_role_without_kept_memory_ends_the_job(launch, tmp_path):
    result = launch(tmp_path, [*RUN, "train.epochs=8"], "--forget", "--fault", "server:0:kill@50")
    assert result.returncode != 0
    assert "error: server:0 killed by signal 9 (Killed), and its state is gone with it" in result.stderr


def test_errors_of_the_data_are_said_once(launch, tmp_path):
    result = launch(tmp_path, ["data.kind=adult", "data.path=/nowhere"])
    assert result.returncode != 0
    assert result.stderr.count("error: ") == 1 and "/nowhere" in result.stderr


def test_two_supervisors_make_one_job(tessera, launch, alone, config, tmp_path):
    words = [*RUN, "train.servers=2"]
    token = {"TESSERA_TOKEN": "of the job"}
    other = [tessera, "launch", "--join", "127.0.0.1:29655", "--roles", "server:1,loader", "--", "recsys", "train",
             "--config", config, *words]
    joined = subprocess.Popen([str(word) for word in other], env={**os.environ, **token}, stderr=subprocess.PIPE, text=True)
    try:
        result = launch(tmp_path, words, "--port", "29655", "--roles", "server:0,worker:0,trainer:0", environment=token)
        assert result.returncode == 0, result.stderr
        assert bits(tmp_path) == alone(RUN)
        assert joined.wait(timeout=20) == 0, joined.stderr.read()
    finally:
        joined.kill()


def test_ctrl_c_ends_all_roles(tessera, config, tmp_path):
    command = [tessera, "launch", "--", "recsys", "train", "--config", config, *RUN, "train.epochs=1000"]
    job = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=20) == 128 + signal.SIGINT
    assert "stopped after 0 restarts" in job.stderr.read()


def process_tree(pid):
    """A process and all below it, from /proc."""
    found = [pid]
    for parent in found:
        children = os.path.join("/proc", str(parent), "task")
        for task in os.listdir(children) if os.path.isdir(children) else []:
            with open(os.path.join(children, task, "children")) as file:
                found += [int(child) for child in file.read().split()]
    return found


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def steps_done(folder):
    """Steps that the supervisor's record of the run shows, by the samples of the last line."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.parametrize("gone", ["server:1,replica:0", "server:1,replica:0,loader,worker:0"])
def test_a_host_that_is_gone_with_its_memory_changes_no_bit(tessera, launch, alone, config, tmp_path, gone):
    words = [*RUN, "train.epochs=12"]
    here = [role for role in ["loader", "worker:0", "server:0", "replica:1", "trainer:0", "trainer:1"] if role not in gone]
    token = {"TESSERA_TOKEN": "of the job"}
    port = str(29700 + os.getpid() % 200)
    job = [*words, "train.servers=2", "train.trainers=2", "train.replicas=1", f"train.run_dir={tmp_path / 'run'}"]
    other = [tessera, "launch", "--join", f"127.0.0.1:{port}", "--roles", gone, "--", "recsys", "train", "--config", config, *job]
    joined = subprocess.Popen([str(word) for word in other], env={**os.environ, **token}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    killer = threading.Thread(target=lambda: (wait_for(lambda: steps_done(tmp_path) >= 100, "step 100"),
                                              [os.kill(pid, signal.SIGKILL) for pid in process_tree(joined.pid)]))
    killer.start()
    try:
        result = launch(tmp_path, job, "--port", port, "--roles", ",".join(here), environment=token)
        assert result.returncode == 0, result.stderr
        killer.join()
        assert joined.wait(timeout=20) == -signal.SIGKILL
        assert [event["detail"].split(" with")[0] for event in events(tmp_path, "lost")] == ["host 2"]
        assert [event["detail"] for event in events(tmp_path, "promoted")] == ["replica:1 takes the place of server:1"]
        moved = {event["detail"].split()[0] for event in events(tmp_path, "moved")}
        assert moved == {"replica:1", *gone.split(",")} - {"server:1"}
        assert bits(tmp_path) == alone(words)
    finally:
        joined.kill()


def test_a_host_without_a_replica_ends_the_job(tessera, launch, config, tmp_path):
    token = {"TESSERA_TOKEN": "of the job"}
    port = str(29900 + os.getpid() % 90)
    words = [*RUN, "train.epochs=100", "train.servers=2"]
    other = [tessera, "launch", "--join", f"127.0.0.1:{port}", "--roles", "server:1", "--fault", "host:kill@50", "--", "recsys",
             "train", "--config", config, *words]
    joined = subprocess.Popen([str(word) for word in other], env={**os.environ, **token}, stderr=subprocess.DEVNULL)
    try:
        result = launch(tmp_path, words, "--port", port, "--roles", "loader,worker:0,server:0,trainer:0", environment=token)
        assert result.returncode != 0
        assert "server:1 is gone with host 2, and no other host holds a replica of its rows" in result.stderr
        assert joined.wait(timeout=20) == 0
    finally:
        joined.kill()


def test_a_killed_server_with_a_replica_and_a_killed_replica_change_no_bit(launch, alone, tmp_path):
    words = [*RUN, "train.epochs=8"]
    result = launch(tmp_path, [*words, "train.servers=2"], "-n", "2", "--replicas", "1", "--fault", "server:1:kill@100", "--fault",
                    "replica:0:kill@150")
    assert result.returncode == 0, result.stderr
    # In either order: a quick machine does the steps between the two faults before the first loss is told.
    assert sorted(event["detail"].split()[0] for event in events(tmp_path, "lost")) == ["replica:0", "server:1"]
    assert bits(tmp_path) == alone(words)
