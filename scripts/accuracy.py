#!/usr/bin/env python3
"""Writes the tables of docs/accuracy.md, training and serving.

    scripts/accuracy.py --tessera build/plan-only/tessera [--silicon serving_silicon.csv]

Runs `tessera plan validate` on data/published/training_cases.csv, serving_cases.csv and, where it lies (it is no part
of the repository), serving_silicon.csv, and puts the summaries between the markers of the page; what is left out in
turn comes from data/published/leave_one_source_out.json, leave_one_device_out.json and leave_one_model_out.json, which
scripts/fit_training.py writes.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs/accuracy.md")
SILICON = os.path.join(ROOT, "../shared/published/serving_silicon.csv")
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


METRICS = {"tpot_ms": "TPOT", "ttft_ms": "TTFT", "saturated tok_s_gpu": "saturated tokens/s per GPU", "tok_s_gpu": "tokens/s per GPU"}
SERVING_HEADER = ("| rows | metric | rows | refused | mean % | median % | p90 % | max % | bias % | in 90 % interval |\n"
                  "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")


def serving_table(summary, wanted):
    """`wanted`: takes a group's name and gives how it is called in the table, or None."""
    text = SERVING_HEADER
    for one in summary:
        name = wanted(one["group"])
        if name and one["rows"]:
            text += (f"| {name} | {METRICS[one['metric']]} | {one['rows']} | {one['refused']} | {one['mean_abs_pct']:.1f} | "
                     f"{one['median_abs_pct']:.1f} | {one['p90_abs_pct']:.1f} | {one['max_abs_pct']:.0f} | {one['bias_pct']:+.1f} | "
                     f"{one['coverage_pct']:.0f} % |\n")
    return text


def serving(tessera, title, cases):
    summary = validate(tessera, cases, "--serving")["summary"]
    whole = {"all", "calibration part", "test part", "aggregated", "disaggregated"}
    parts = lambda group: group if group in whole or group.startswith("offered") else None
    by = lambda prefix: lambda group: group[len(prefix):] if group.startswith(prefix) else None
    return "\n".join([f"### {title}\n", serving_table(summary, parts), "By engine:\n", serving_table(summary, by("engine ")),
                      "By device:\n", serving_table(summary, by("gpu "))])


def validate(tessera, cases, kind="--training"):
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "out.json")
        subprocess.run([tessera, "plan", "validate", kind, cases, "--summary", "--json", out], check=True,
                       stdout=subprocess.DEVNULL)
        with open(out) as file:
            return json.load(file)


def training(tessera, cases):
    result = validate(tessera, cases)
    failed = validate(tessera, os.path.join(ROOT, "data/published/out_of_memory.csv"))
    summary = [one for one in result["summary"] if one["metric"] == "step_time_s"]
    return "\n".join(["### Over all\n", overall(summary), "### By device\n", table(summary, "device", "gpu "),
                      "### By source\n", table(summary, "source", "source "), "### Largest errors\n",
                      worst(result["rows"]), "### Does it fit?\n",
                      verdicts(result["verdicts"], failed["verdicts"]), "### Leave one source out\n", left_out(),
                      "### Leave one device out\n", devices_left_out(),
                      "### Leave one model out\n", models_left_out()])


def put(section, text):
    """Between the section's markers."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    with open(PAGE) as file:
        before, rest = file.read().split(begin)
    with open(PAGE, "w") as file:
        file.write(f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--cases", default=os.path.join(ROOT, "data/published/training_cases.csv"))
    parser.add_argument("--silicon", default=SILICON)
    args = parser.parse_args()
    put("training", training(args.tessera, args.cases))
    put("serving cases", serving(args.tessera, "Published operating points (`data/published/serving_cases.csv`)",
                                 os.path.join(ROOT, "data/published/serving_cases.csv")))
    if os.path.exists(args.silicon):
        put("serving silicon", serving(args.tessera, "Measured TTFT and TPOT (`serving_silicon.csv`)", args.silicon))
    else:
        print(f"{args.silicon} is not there: its tables are left as they are")


if __name__ == "__main__":
    main()
