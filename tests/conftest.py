"""What tests of whole programs share: where the command is, and how to run it."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tessera():
    """Path of the command: $TESSERA, else the release build."""
    path = pathlib.Path(os.environ.get("TESSERA", ROOT / "build/release/tessera"))
    assert path.exists(), f"{path} is not built: run ./test, or set TESSERA"
    return path


@pytest.fixture(scope="session")
def run_tessera(tessera):
    """run_tessera("plan", "train", ...) -> CompletedProcess with text output; never waits longer than `timeout`."""

    def run(*arguments, timeout=120, **options):
        return subprocess.run([tessera, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **options)

    return run
