"""The manifests of Persia's cluster start each role of its run exactly once."""
import collections
import subprocess
import tomllib

import pytest

yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def manifests(root):
    folder = root / "examples/recsys/kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [part for name in listed for part in yaml.safe_load_all((folder / name).read_text())]


def roles_of_pod(pod, ordinal):
    """Runs the pod's own command with an `echo` in place of `tessera`."""
    command = pod["spec"]["containers"][0]["args"][0].replace("exec tessera", "echo")
    out = subprocess.run(["sh", "-c", command], env={"HOSTNAME": f"pod-{ordinal}", "POD_IP": "10.0.0.1"}, check=True,
                         capture_output=True, text=True).stdout.split()
    assert out[0] == "launch" and "--" in out
    return out[out.index("--roles") + 1].split(",")


def test_every_role_is_started_once(manifests, root):
    train = tomllib.loads((root / "examples/recsys/kubernetes/run.toml").read_text())["train"]
    wanted = ["loader", *(f"server:{i}" for i in range(train["servers"])), *(f"worker:{i}" for i in range(train["workers"])),
              *(f"trainer:{i}" for i in range(train["trainers"]))]
    started = []
    for part in manifests:
        if part["kind"] in ("StatefulSet", "Job"):
            pods = part["spec"].get("replicas", 1)
            started += [role for i in range(pods) for role in roles_of_pod(part["spec"]["template"], i)]
    assert collections.Counter(started) == collections.Counter(wanted)


def test_the_run_is_one_that_the_program_understands(run_tessera, root):
    result = run_tessera("recsys", "train", "--config", root / "examples/recsys/kubernetes/run.toml", "--explain")
    assert result.returncode == 0, result.stderr
    assert "train.workers" in result.stdout
