"""`tessera recsys reshard`: another number of embedding servers while training goes on, with the bits of an undisturbed run."""
import json
import os
import signal
import subprocess
import time

import pytest

from recsys_runs import alone, bits, config  # noqa: F401 (fixtures)

RUN = ["data.slots=40,3000,12", "data.numbers=4", "data.train_rows=6400", "data.test_rows=1000", "train.batch=32", "train.parts=2",
       "embedding.dim=8", "model.top=32,16", "model.bottom=16,8", "train.staleness=3", "train.threads=1", "train.deterministic=true"]
EPOCHS = [20, 80, 320]  # the next one when a job was over before its servers could change


class Over(Exception):
    """The job was done before its number of servers could change."""


def events(folder, kind):
    path = folder / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["detail"] for line in lines if line["event"] == kind]


def wait_for(condition, job, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        if job.poll() is not None:
            raise Over(job.stderr_file.read_text())
        assert time.monotonic() < deadline, job.stderr_file.read_text()
        time.sleep(0.02)


class Job:
    """A job of `tessera launch` in a folder of its own."""

    def __init__(self, tessera, config, folder, words, options=()):
        folder.mkdir(parents=True, exist_ok=True)
        self.tessera, self.folder = tessera, folder
        self.stderr_file = folder / "stderr"
        command = [tessera, "launch", "--run-dir", folder, *options, "--", "recsys", "train", "--config", config, "--hash", "--json",
                   folder / "result.json", *words]
        with self.stderr_file.open("w") as errors:
            self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=errors)
        self.poll = self.process.poll

    def reshard(self, servers, json_file=None):
        command = [self.tessera, "recsys", "reshard", "--run", self.folder, "--servers", servers]
        command += ["--json", json_file] if json_file else []
        wait_for(lambda: (self.folder / "logs").exists(), self)
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=180)
        if done.returncode != 0 and ("job has ended" in done.stderr or "no launcher" in done.stderr):
            raise Over(done.stderr)
        return done

    def finish(self):
        assert self.process.wait(timeout=240) == 0, self.stderr_file.read_text()
        return bits(self.folder)

    def kill(self):
        if self.poll() is None:
            self.process.kill()
        self.process.wait()


def long_enough(body):
    for epochs in EPOCHS:
        try:
            return body(epochs)
        except Over as over:
            if epochs == EPOCHS[-1]:
                raise AssertionError(f"no job was long enough: {over}") from over


@pytest.fixture
def start(tessera, config):
    jobs = []

    def begin(folder, words, *options):
        jobs.append(Job(tessera, config, folder, words, options))
        return jobs[-1]
    yield begin
    for job in jobs:
        job.kill()


# With two trainers it is chance whose gradient of an id is rounded first.
@pytest.mark.parametrize("more,trainers", [([], 2), (["wire.compress=true", "wire.gradients=bf16", "wire.cache_rows=200"], 1)],
                         ids=["plain", "packed"])
def test_more_and_fewer_servers_change_no_bit(start, alone, tmp_path, more, trainers):
    def body(epochs):
        words = [*RUN, *more, f"train.epochs={epochs}"]
        job = start(tmp_path / str(epochs), [*words, "train.servers=2"], "-n", str(trainers))
        for servers in [3, 2]:
            done = job.reshard(servers, tmp_path / "told.json")
            assert done.returncode == 0, done.stderr
            told = json.loads((tmp_path / "told.json").read_text())
            assert told["servers"] == servers and told["rows"] > 0 and told["hand_over_s"] < told["total_s"]
        assert job.finish() == alone(words)
        assert len(events(job.folder, "resharded")) == 2 and not events(job.folder, "lost")
    long_enough(body)


@pytest.mark.parametrize("fault", ["server:0:kill@copy", "server:1:kill@hold", "server:0:kill@hand-over", "server:2:kill@hand-over"])
def test_a_server_that_dies_in_a_move_loses_nothing(start, alone, tmp_path, fault):
    def body(epochs):
        words = [*RUN, f"train.epochs={epochs}"]
        job = start(tmp_path / str(epochs), [*words, "train.servers=2"], "-n", "2", "--fault", fault)
        done = job.reshard(3)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in events(job.folder, "lost")] == [fault.split(":kill")[0]]
        assert any("begins again" in line for line in events(job.folder, "reshard"))
        assert job.finish() == alone(words)
    long_enough(body)


def test_a_server_that_gives_all_its_rows_away_dies_in_the_hand_over(start, alone, tmp_path):
    def body(epochs):
        words = [*RUN, f"train.epochs={epochs}"]
        job = start(tmp_path / str(epochs), [*words, "train.servers=3"], "--fault", "server:2:kill@hand-over")
        assert job.reshard(1).returncode == 0
        assert [line.split()[0] for line in events(job.folder, "lost")] == ["server:2"]
        assert job.finish() == alone(words)
    long_enough(body)


def test_the_death_of_the_launcher_in_a_move_leaves_its_checkpoints(start, alone, tessera, config, tmp_path):
    def body(epochs):
        words = [*RUN, f"train.epochs={epochs}", "train.servers=2", "train.checkpoint_every=40"]
        folder = tmp_path / str(epochs)
        run = f"train.run_dir={folder / 'run'}"
        job = start(folder, [*words, run])
        wait_for(lambda: len(list((folder / "run").glob("checkpoints/*/manifest.json"))) > 1, job)
        order = subprocess.Popen([str(word) for word in [tessera, "recsys", "reshard", "--run", folder, "--servers", "3"]],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: any("hands over at step" in line for line in events(folder, "reshard")), job)
        finally:
            order.kill()
            order.wait()
        job.process.send_signal(signal.SIGKILL)
        job.process.wait()
        again = start(folder, [*words, run, "--resume", "train.servers=3"])
        assert again.finish() == alone([word for word in words if "servers" not in word])
    long_enough(body)


def test_checkpoints_around_a_move_load_with_any_number(start, alone, tmp_path):
    def body(epochs):
        words = [*RUN, f"train.epochs={epochs}", "train.checkpoint_every=40"]
        folder = tmp_path / str(epochs)
        run = [f"train.run_dir={folder / 'run'}", "train.keep=0", "train.full_every=4"]
        job = start(folder, [*words, *run, "train.servers=2"])
        manifests = lambda: {json.loads(file.read_text())["standing"]["step"]: len(json.loads(file.read_text())["servers"])
                             for file in (folder / "run").glob("checkpoints/*/manifest.json")}
        wait_for(lambda: len(manifests()) > 1, job)
        assert job.reshard(3).returncode == 0
        wait_for(lambda: 3 in manifests().values(), job)
        assert job.reshard(1).returncode == 0
        expected = alone(words)
        assert job.finish() == expected
        numbers = manifests()
        assert set(numbers.values()) == {1, 2, 3}
        for servers in (1, 2, 3):
            step = max(step for step, number in numbers.items() if number == servers)
            resumed = start(folder / f"from-{servers}", [*words, f"train.run_dir={folder / f'from-{servers}'}", "train.servers=2",
                                                         f"train.resume={folder / 'run' / 'checkpoints' / f'step-{step}'}"])
            weights, rows, _, count = resumed.finish()  # there may be no test left to do
            assert (weights, rows, count) == (expected[0], expected[1], expected[3])
    long_enough(body)


def test_rows_on_disk_move_too(start, alone, tmp_path):
    def body(epochs):
        plain = [*RUN, f"train.epochs={epochs}"]
        disk = ["embedding.memory_bytes=60000", f"embedding.disk={tmp_path / f'rows-{epochs}'}"]
        job = start(tmp_path / str(epochs), [*plain, *disk, "train.servers=2"])
        assert job.reshard(3).returncode == 0
        weights, _, auc, _ = job.finish()
        groups = json.loads((job.folder / "result.json").read_text())["groups"]
        assert groups[0]["disk_rows"] > 0 and groups[0]["evicted"] == 0
        assert (weights, auc) == (alone(plain)[0], alone(plain)[2])
    long_enough(body)


def test_what_cannot_be_is_refused_in_one_line(start, tessera, tmp_path):
    def body(epochs):
        job = start(tmp_path / str(epochs), [*RUN, f"train.epochs={epochs}", "train.replicas=1"])
        refused = job.reshard(2)
        assert refused.returncode != 0 and "a job with replicas cannot change" in refused.stderr
        assert refused.stderr.count("\n") == 1
        job.kill()
        job = start(tmp_path / f"{epochs}-again", [*RUN, f"train.epochs={epochs}"])
        assert "the job has 1 servers already" in job.reshard(1).stderr
    long_enough(body)
    nowhere = subprocess.run([tessera, "recsys", "reshard", "--run", "/nowhere", "--servers", "2"], capture_output=True, text=True)
    assert nowhere.returncode != 0 and "/nowhere: there is no such folder" in nowhere.stderr
