"""Checkpoints of `tessera recsys train`: on from one of them, with other numbers of servers, no bit differs; what is
broken is said."""
import json
import pathlib
import resource
import shutil
import signal
import subprocess

import pytest

RUN = ["data.slots=40,500,12", "data.numbers=4", "data.train_rows=3200", "data.test_rows=500", "train.batch=32", "embedding.dim=8",
       "model.top=32,16", "model.bottom=16,8", "train.staleness=3", "train.threads=1", "train.deterministic=true"]
EVERY = 30  # an epoch has 100 steps


@pytest.fixture(scope="session")
def train(tessera, root):
    def run(folder, *words, launch=(), limit=None):
        start = [tessera, "launch", *launch, "--"] if launch else [tessera]
        command = [*start, "recsys", "train", "--config", root / "examples/recsys/synthetic.toml", "--hash", "--json",
                   folder / "result.json", *RUN, f"train.run_dir={folder}", f"train.checkpoint_every={EVERY}", *words]
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=180, preexec_fn=limit)
    return run


def bits(folder):
    result = json.loads((folder / "result.json").read_text())
    return result["weights_hash"], result["rows_hash"], result["test_auc"]


def checkpoints(folder):
    return sorted(int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoints/step-*/manifest.json"))


@pytest.fixture(scope="session")
def whole(train, tmp_path_factory):
    """Two epochs without a break, all checkpoints kept."""
    folder = tmp_path_factory.mktemp("whole")
    result = train(folder, "train.epochs=2", "train.keep=0", "train.full_every=3")
    assert result.returncode == 0, result.stderr
    return folder


def copy_until(whole, folder, last):
    """A run that died after its checkpoint of step `last`."""
    shutil.copytree(whole / "checkpoints", folder / "checkpoints")
    for step in checkpoints(folder):
        if step > last:
            shutil.rmtree(folder / f"checkpoints/step-{step}")


def test_checkpoints_are_full_ones_and_deltas(whole):
    assert checkpoints(whole) == [30, 60, 90, 120, 150, 180, 200]
    files = json.loads((whole / "checkpoints/step-150/manifest.json").read_text())["servers"][0]
    assert files == ["step-120/server-0.rows", "step-150/server-0.rows"]


@pytest.mark.parametrize("last", [30, 60, 90, 150])
def test_resume_gives_the_bits_of_a_run_without_a_break(train, whole, tmp_path, last):
    copy_until(whole, tmp_path, last)
    result = train(tmp_path, "train.epochs=2", "--resume", f"train.servers={1 + last % 4}")
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == bits(whole)


def test_an_export_takes_nothing_from_checkpoints(train, whole, tmp_path):
    result = train(tmp_path, "train.epochs=2", "train.keep=0", "train.full_every=100", "--export", tmp_path / "served", "--export-interval", "0.001")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "served").glob("rows-0-*.delta"))) > 1
    for step in checkpoints(tmp_path)[-2:]:
        shutil.rmtree(tmp_path / f"checkpoints/step-{step}")
    (tmp_path / "result.json").unlink()
    result = train(tmp_path, "train.epochs=2", "--resume")
    assert result.returncode == 0, result.stderr
    assert bits(tmp_path) == bits(whole)


def test_roles_save_and_resume_with_other_numbers_of_servers(train, tmp_path):
    """Long enough that the strike finds the job at work, and that the checkpoint it resumed from is an old one by then."""
    alone, roles = tmp_path / "alone", tmp_path / "roles"
    for folder in (alone, roles):
        folder.mkdir()
    assert train(alone, "train.epochs=20").returncode == 0
    result = train(roles, "train.parts=1", "train.servers=2", "train.epochs=1", launch=["-n", "1"])
    assert result.returncode == 0, result.stderr
    assert checkpoints(roles)[-2:] == [90, 100]
    result = train(roles, "train.servers=3", "train.epochs=20", "--resume", launch=["--fault", "server:1:kill@300"])
    assert result.returncode == 0, result.stderr
    assert "server:1 killed" in result.stderr
    assert bits(roles) == bits(alone)


def test_a_saving_server_that_is_killed_costs_one_checkpoint_at_most(train, whole, tmp_path):
    result = train(tmp_path, "train.epochs=2", "train.servers=2", "train.checkpoint_every=10",
                   launch=["--fault", "server:0:kill@50", "--fault", "trainer:0:kill@120"])
    assert result.returncode == 0, result.stderr
    assert checkpoints(tmp_path)[-1] == 200
    again = train(tmp_path, "train.epochs=2", "train.checkpoint_every=10", "--resume", "train.servers=1")
    assert again.returncode == 0, again.stderr


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm,message", [
    (lambda folder: flip(folder / "step-60/server-0.rows", -100), "server-0.rows"),
    (lambda folder: flip(folder / "step-60/dense.bin", 7), "dense.bin"),
    (lambda folder: (folder / "step-30/server-0.rows").write_bytes((folder / "step-30/server-0.rows").read_bytes()[:-20]),
     "server-0.rows"),
    (lambda folder: (folder / "step-30/server-0.rows").unlink(), "server-0.rows"),
    (lambda folder: (folder / "step-60/manifest.json").write_text("{"), "manifest.json"),
], ids=["flipped row", "flipped weight", "torn file", "missing file", "torn manifest"])
def test_a_broken_checkpoint_is_named(train, whole, tmp_path, harm, message):
    copy_until(whole, tmp_path, 60)
    harm(tmp_path / "checkpoints")
    result = train(tmp_path, "--resume")
    assert result.returncode != 0
    assert result.stderr.count("error: ") == 1 and message in result.stderr.splitlines()[-1], result.stderr


@pytest.mark.parametrize("word,message", [
    ("train.batch=64", "was made with train.batch=32"),
    ("model.top=16,16", "were model.* or dense.optimizer changed?"),
    ("embedding.dim=4", "other groups"),
    ("embedding.optimizer=adagrad", "other groups"),
])
def test_a_checkpoint_of_another_model_is_refused(train, whole, tmp_path, word, message):
    copy_until(whole, tmp_path, 60)
    words = [word, "model.bottom=16,4"] if "embedding.dim" in word else [word]
    result = train(tmp_path, "--resume", *words)
    assert result.returncode != 0 and message in result.stderr, result.stderr


def test_mistakes_are_explained(train, whole, tmp_path):
    nothing = train(tmp_path, "--resume")
    assert nothing.returncode != 0 and "has no checkpoint to resume from" in nothing.stderr
    copy_until(whole, tmp_path, 60)
    other = train(tmp_path)
    assert other.returncode != 0 and "is a checkpoint of another run" in other.stderr
    nowhere = train(tmp_path, "train.run_dir=")
    assert nowhere.returncode != 0 and "train.run_dir" in nowhere.stderr


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(train, whole, tmp_path):
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000))
    result = train(tmp_path, "train.epochs=2", limit=small_files)
    assert result.returncode == 0, result.stderr
    assert "no checkpoint of step 30, training goes on" in result.stderr
    assert checkpoints(tmp_path) == []
    assert bits(tmp_path) == bits(whole)
    assert not list(pathlib.Path(tmp_path).glob("checkpoints/*/*.tmp*"))
