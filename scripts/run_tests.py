"""Builds and runs every test and check; called by ./test, which does the set-up.

A step is a function below, run in the order of STEPS. Test programs (GoogleTest, pytest) write JUnit files, whose
cases are counted one by one; a check counts as one case.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "test-results"
JOBS = str(os.cpu_count())
TSAN_PARTS = ("core", "comm")  # parts whose code is about threads
ASAN_PARTS = ("core", "spec", "layout", "schedule", "batching", "plan", "comm", "data", "chat", "grammar", "http", "report",
              "recsys", "recsys_data")  # without torch
passed, skipped, failures = 0, 0, []


def record_check(name, ok, note=""):
    global passed
    if ok:
        passed += 1
    else:
        failures.append(f"{name}{': ' + note if note else ''}")


def record_skip(name, why):
    global skipped
    skipped += 1
    print(f"skipped: {name}: {why}", flush=True)


def run(command, timeout, env=None):
    """Runs a command with its output on the terminal; True when it exits with 0 in time."""
    shown = command if len(command) <= 12 else [*command[:8], f"... ({len(command) - 8} more)"]
    print("+", *shown, flush=True)
    try:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, start_new_session=True)
        return process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # the whole session, or children of a hung test would live on
        process.wait()
        print(f"no end after {timeout} s: killed", flush=True)
        return False


def record_junit(path, name, program_ok):
    """Counts the cases of one JUnit file; a program that left none, or failed beyond its cases, is one failure."""
    global passed, skipped
    failed_before = len(failures)
    if not path.exists():
        record_check(name, False, "ended without a result")
        return
    for case in ElementTree.parse(path).iter("testcase"):
        label = f"{name}: {case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(label)
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    if not program_ok and len(failures) == failed_before:
        failures.append(f"{name}: the program failed although no case did")


def configure(preset, *options):
    python = [f"-DTESSERA_PYTHON={sys.executable}"] if preset == "release" else []
    return run(["cmake", "--preset", preset, *python, *options, "-Wno-dev", "--log-level=WARNING"], 300)


def build(preset, *targets):
    command = ["cmake", "--build", "--preset", preset, "-j", JOBS]
    for target in targets:
        command += ["--target", target]
    # A folder that was never built is built whole, once: several files at a time. Who works on the code has one of his own.
    if (ROOT / "build" / preset / "CMakeCache.txt").exists():
        return configure(preset) and run(command, 2400)
    if configure(preset, "-DTESSERA_UNITY=ON") and run(command, 1200):
        return True
    print("note: several files of a part do not compile as one; building them one by one", flush=True)
    return configure(preset, "-DTESSERA_UNITY=OFF") and run(command, 2400)


def run_test_programs(preset, programs, env=None, prefix=()):
    folder = RESULTS / preset
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for program in programs:
        result = folder / f"{program.name}.xml"
        # gtest_brief: a green case is silent, a red one complete.
        ok = run([*prefix, str(program), "--gtest_brief=1", f"--gtest_output=xml:{result}"], 600, env)
        record_junit(result, f"{preset} {program.name}", ok)


def test_programs(preset):
    return sorted((ROOT / "build" / preset).glob("*_test"))


def parts_with_tests():
    return {path.relative_to(ROOT / "src").parts[0] for path in (ROOT / "src").glob("*/**/*_test.cpp")}


# ---- steps ----


def step_build():
    record_check("build of preset release", build("release"))


def step_cpp():
    """The test program of every part."""
    programs = test_programs("release")
    record_check("every part with tests has a test program",
                 {p.name for p in programs} == {f"{part}_test" for part in parts_with_tests() - {"cli"}})
    run_test_programs("release", programs)


def step_python():
    """Tests of whole programs, and those against Python's libraries: tests/*_test.py."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*_test.py"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = RESULTS / "pytest.xml"
    result.unlink(missing_ok=True)
    ok = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={result}", *files], 1500)
    record_junit(result, "pytest", ok)


def step_plan_only():
    """The planner builds and starts where there is no torch."""
    ok = build("plan-only", "tessera") and run([str(ROOT / "build/plan-only/tessera"), "--version"], 20)
    record_check("build of preset plan-only", ok)


def step_headers():
    """Every header compiles alone; those of parts without torch have no torch to include."""
    record_check("every header compiles alone", build("release", "headers"))


def step_format():
    tool = shutil.which("clang-format-14")
    if not tool:
        return record_skip("format", "needs clang-format 14, for which the style was set")
    sources = [str(p.relative_to(ROOT)) for s in ("src", "bench", "tests") for e in ("*.h", "*.cpp", "*.cu")
               for p in sorted((ROOT / s).rglob(e))]
    record_check("sources are formatted", run([tool, "--dry-run", "--Werror", *sources], 120))


def step_layers():
    record_check("parts include downwards only", run([sys.executable, "scripts/check_layers.py"], 60))


def step_asan():
    """Parts without torch under address and undefined-behaviour sanitizers."""
    programs = [f"{part}_test" for part in ASAN_PARTS]
    if not build("asan", *programs):
        return record_check("build of preset asan", False)
    env = {"ASAN_OPTIONS": "detect_stack_use_after_return=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
    run_test_programs("asan", [ROOT / "build/asan" / p for p in programs], env)


def step_tsan():
    """Parts about threads under the thread sanitizer."""
    programs = [f"{part}_test" for part in TSAN_PARTS if part in parts_with_tests()]
    if not build("tsan", *programs):
        return record_check("build of preset tsan", False)
    # GCC 12's thread sanitizer cannot place its shadow where the kernel randomises addresses with many bits.
    prefix = ("setarch", os.uname().machine, "-R") if can_fix_addresses() else ()
    run_test_programs("tsan", [ROOT / "build/tsan" / p for p in programs], {"TSAN_OPTIONS": "halt_on_error=1"}, prefix)


def can_fix_addresses():
    return subprocess.run(["setarch", os.uname().machine, "-R", "true"], capture_output=True).returncode == 0


STEPS = {
    "layers": step_layers,
    "format": step_format,
    "build": step_build,
    "cpp": step_cpp,
    "python": step_python,
    "headers": step_headers,
    "plan-only": step_plan_only,
    "asan": step_asan,
    "tsan": step_tsan,
}


def main():
    parser = argparse.ArgumentParser(prog="./test", description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", choices=[*STEPS, []], help="only these steps")
    parser.add_argument("--list", action="store_true", help="name the steps and end")
    options = parser.parse_args()
    if options.list:
        print("\n".join(STEPS))
        return 0
    os.environ["TESSERA"] = str(ROOT / "build" / "release" / "tessera")
    for name in options.steps or STEPS:
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        STEPS[name]()
        print(f"-- {name}: {time.monotonic() - start:.0f} s", flush=True)
    print()
    for failure in failures:
        print("FAILED", failure)
    print(f"{passed} passed, {len(failures)} failed, {skipped} skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
