"""The doctor's findings against what Python sees of the same machine."""
import json
import os
import resource
import shutil
import subprocess


def findings(run_tessera, **options):
    result = run_tessera("doctor", "--json", "-", **options)
    return result, {row["name"]: row for row in json.loads(result.stdout)["findings"]}


def test_findings_are_those_of_this_machine(run_tessera):
    result, rows = findings(run_tessera)
    assert result.returncode == 0, result.stderr
    assert os.uname().release in rows["system"]["value"]
    flags = open("/proc/cpuinfo").read()
    assert ("avx2" in rows["processor"]["value"]) == (" avx2 " in flags)
    assert int(rows["processor"]["value"].split(" cores")[0].split()[-1]) <= len(os.sched_getaffinity(0))
    number, unit = rows["disk here"]["value"].split()[:2]
    free = float(number) * {"MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(free / shutil.disk_usage(".").free - 1) < 0.1


def test_cores_are_those_that_the_process_may_use(tessera):
    result = subprocess.run(["taskset", "-c", str(min(os.sched_getaffinity(0))), tessera, "doctor", "--json", "-"],
                            capture_output=True, text=True, timeout=60)
    rows = {row["name"]: row for row in json.loads(result.stdout)["findings"]}
    assert ", 1 cores" in rows["processor"]["value"]


def test_too_few_open_files_is_a_problem_with_advice(run_tessera):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    result, rows = findings(run_tessera, preexec_fn=limit)
    assert result.returncode == 1
    assert rows["open files"]["verdict"] == "problem" and "ulimit -n" in rows["open files"]["advice"]
