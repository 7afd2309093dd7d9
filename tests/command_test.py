"""The command's own manners: help, version, and readable errors."""


def test_version_is_one_line(run_tessera):
    result = run_tessera("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tessera ") and result.stdout.count("\n") == 1


def test_every_subcommand_explains_itself(run_tessera):
    result = run_tessera("--help-all")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_no_subcommand_is_an_error(run_tessera):
    result = run_tessera()
    assert result.returncode != 0
    assert "subcommand" in (result.stdout + result.stderr).lower()
