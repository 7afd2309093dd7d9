#!/usr/bin/env python3
"""Writes the training tables of docs/accuracy.md.

    scripts/accuracy.py --tessera build/plan-only/tessera

Runs `tessera plan validate --training data/published/training_cases.csv` and puts its summary between the
markers of the page; what is left out in turn comes from data/published/leave_one_source_out.json,
leave_one_device_out.json and leave_one_model_out.json, which scripts/fit_training.py writes.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs/accuracy.md")
BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"
HEADER = ("| {} | rows | refused | mean % | median % | p90 % | max % | bias % | in 90 % interval |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")


def line(one, name):
    if one["rows"] == 0:
        return f"| {name} | 0 | {one['refused']} | | | | | | |\n"
    return (f"| {name} | {one['rows']} | {one['refused']} | {one['mean_abs_pct']:.1f} | {one['median_abs_pct']:.1f} | "
            f"{one['p90_abs_pct']:.1f} | {one['max_abs_pct']:.1f} | {one['bias_pct']:+.1f} | "
            f"{one['coverage_pct']:.0f} % |\n")


def table(summary, title, prefix):
    rows = [one for one in summary if one["group"].startswith(prefix)]
    rows.sort(key=lambda one: (one["rows"] == 0, one["group"]))
    return HEADER.format(title) + "".join(line(one, one["group"][len(prefix):]) for one in rows)


def overall(summary):
    names = ["newest", "newest calibration", "newest test", "all", "calibration", "test", "set Korthikanti 8",
             "set SimuMax 43"]
    by_name = {one["group"]: one for one in summary}
    return HEADER.format("group") + "".join(line(by_name[name], name) for name in names if name in by_name)


def worst(rows, count=12):
    found = []
    for row in rows:
        if row["predicted"] and row["published"]["step_time_s"]:
            error = 100 * (row["predicted"]["step_time_s"] / row["published"]["step_time_s"] - 1)
            found.append((error, row))
    found.sort(key=lambda one: -abs(one[0]))
    text = "| row | error % | part | software |\n| --- | ---: | --- | --- |\n"
    for error, row in found[:count]:
        text += f"| {row['id']} | {error:+.1f} | {'calibration' if row['calibration'] else 'test'} | {row['software']} |\n"
    return text


def verdicts(ran, failed):
    text = (f"| what happened | configurations | verdict agrees |\n| --- | ---: | ---: |\n"
            f"| ran | {ran['ran']} | {ran['accepted']} |\n"
            f"| ran out of memory | {failed['out_of_memory']} | {failed['refused']} |\n\n")
    text += (f"{ran['accepted_by_assumed_recomputation']} of the accepted ones state no recomputation, or not all of it, and "
             "fit only with some: the mildest that fits is taken and named.\n")
    wrong = ran["wrong"] + failed["wrong"]
    return text + (f"Wrong about: {', '.join(wrong)}.\n" if wrong else "")


def read_study(name):
    with open(os.path.join(ROOT, "data/published", name)) as file:
        return json.load(file)


def models_left_out():
    study = read_study("leave_one_model_out.json")
    text = "| set | model left out | rows | mean % | max % |\n| --- | --- | ---: | ---: | ---: |\n"
    for one in study:
        text += (f"| {one['set']} | {one['model']} | {one['rows']} | {one['mean_abs_pct']:.1f} | "
                 f"{max(map(abs, one['errors_pct'])):.1f} |\n")
    for name in sorted({one["set"] for one in study}):
        errors = [abs(error) for one in study if one["set"] == name for error in one["errors_pct"]]
        text += (f"| {name} | all of them, in turn | {len(errors)} | {statistics.mean(errors):.1f} | "
                 f"{max(errors):.1f} |\n")
    return text


def devices_left_out():
    study = read_study("leave_one_device_out.json")
    devices = [one for one in study["devices"] if one["test_rows"] > 0]
    rows, covered = sum(one["test_rows"] for one in devices), sum(one["covered"] for one in devices)
    text = (f"Interval on a device that no row has shown: within a factor of {1 + study['half_width']:.2f}, from the calibration "
            f"rows of the devices left out. It covers {covered} of {rows} test rows ({100 * covered / rows:.0f} %).\n\n"
            "| device left out | test rows | mean % | inside the interval |\n| --- | ---: | ---: | ---: |\n")
    for one in devices:
        text += (f"| {one['device']} | {one['test_rows']} | {one['mean_abs_pct']:.1f} | "
                 f"{100 * one['covered'] / one['test_rows']:.0f} % |\n")
    return text


def left_out():
    sources = read_study("leave_one_source_out.json")
    errors = [abs(error) for source in sources for error in source["errors_pct"]]
    text = (f"{len(errors)} rows of {len(sources)} sources: mean {statistics.mean(errors):.1f} %, median "
            f"{statistics.median(errors):.1f} %.\n\n"
            "| source left out | rows | mean % |\n| --- | ---: | ---: |\n")
    for source in sources:
        text += f"| {source['source']} | {source['rows']} | {source['mean_abs_pct']:.1f} |\n"
    return text


def validate(tessera, cases):
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "out.json")
        subprocess.run([tessera, "plan", "validate", "--training", cases, "--summary", "--json", out], check=True,
                       stdout=subprocess.DEVNULL)
        with open(out) as file:
            return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--cases", default=os.path.join(ROOT, "data/published/training_cases.csv"))
    args = parser.parse_args()
    result = validate(args.tessera, args.cases)
    failed = validate(args.tessera, os.path.join(ROOT, "data/published/out_of_memory.csv"))
    summary = [one for one in result["summary"] if one["metric"] == "step_time_s"]
    text = "\n".join(["### Over all\n", overall(summary), "### By device\n", table(summary, "device", "gpu "),
                      "### By source\n", table(summary, "source", "source "), "### Largest errors\n",
                      worst(result["rows"]), "### Does it fit?\n",
                      verdicts(result["verdicts"], failed["verdicts"]), "### Leave one source out\n", left_out(),
                      "### Leave one device out\n", devices_left_out(),
                      "### Leave one model out\n", models_left_out()])
    with open(PAGE) as file:
        page = file.read()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    with open(PAGE, "w") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
