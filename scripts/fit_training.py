#!/usr/bin/env python3
"""Fits src/plan/data/constants/training.toml on the calibration part of the published training runs.

    scripts/fit_training.py --tessera build/plan-only/tessera [--rounds 8] [--leave-out SOURCE] [--out FILE]

The planner itself predicts; this script only moves constants. Each constant has a start value (its prior, from
kernel benchmarks or from what is known of the release) and a width: how far, as a factor, the prior may
reasonably be off. Constants of one family (releases of one framework, devices of one generation) are correlated:
what one shows moves the others, and one without rows follows its family. Minimised is the sum over calibration rows of a robust loss of log(predicted / published),
plus the squared distance of the constants from their priors (Gauss-Newton with a Huber weight). Rows of the
test part are never read for the fit: the planner's JSON says which part a row is in.

Interval half widths come last: per generation, from the calibration residuals, shrunk towards those of all.
"""
import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import tomllib

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = os.path.join(ROOT, "data/published/training_cases.csv")
PRIORS = os.path.join(ROOT, "scripts/training_priors.toml")
OUT = os.path.join(ROOT, "src/plan/data/constants/training.toml")

# Width of the prior as log factor, and the largest value that makes sense.
DEVICE = {
    "gemm_bf16": (0.15, 0.98), "gemm_fp8": (0.15, 0.98), "gemm_fp4": (0.2, 0.98),
    "attention_forward": (0.2, 0.95), "attention_backward": (0.2, 0.9), "memory": (0.1, 0.95),
    "link": (0.1, 0.98), "network": (0.15, 0.98),
}
SOFTWARE = {
    "products": (0.08, 1.5), "attention": (0.3, 1.6), "attention_hopper": (0.3, 1.6), "pointwise": (0.25, 4),
    "grouped": (0.2, 1.5), "tp_exposed": (0.5, 1.5), "ep_exposed": (0.5, 1.5), "dp_exposed": (0.7, 1.5),
    "sharded_rate": (0.4, 1), "cp_slowdown": (0.3, 4), "host_layer_s": (0.4, 0.02),
    "host_experts_s": (0.5, 0.03), "step_s": (1.2, 1), "narrow_host": (0.2, 3),
}


# Families and the correlation of a constant between two members.
FAMILIES = [
    (0.6, ["bridge-plain", "megatron-core-0.14"]),  # Megatron-Core without the tuned recipes
    (0.8, ["bridge-", "nemo-", "mlperf-", "megatron-core-"]),
    (0.5, ["megatron-20", "deepspeed-2022", "megascale-"]),
    (0.5, ["llm-foundry-", "fms-", "torchtitan-", "jax-2024"]),
    (0.6, ["a100-"]),
    (0.6, ["h100", "h200", "h800"]),
    (0.6, ["b200", "b300", "gb200-", "gb300-"]),
]


def family(name):
    for index, (_, starts) in enumerate(FAMILIES):
        if any(name.startswith(start) for start in starts):
            return index
    return None


def predict(tessera, constants, cases, scratch):
    path = os.path.join(scratch, "constants.toml")
    out = os.path.join(scratch, "out.json")
    with open(path, "w") as file:
        file.write(to_toml(constants))
    subprocess.run([tessera, "plan", "validate", "--training", cases, "--constants", path, "--summary",
                    "--json", out], check=True, stdout=subprocess.DEVNULL)
    with open(out) as file:
        return json.load(file)["rows"]


def to_toml(constants):
    lines = []
    if "unseen" in constants:
        lines += ["[unseen]  # devices without rows", f"half_width = {constants['unseen']['half_width']:.5g}", ""]
    for kind in ("device", "software"):
        for name, table in constants[kind].items():
            lines.append(f'[{kind}."{name}"]')
            for key, value in table.items():
                lines.append(f"{key} = {json.dumps(value) if isinstance(value, str) else format(value, '.5g')}")
            lines.append("")
    return "\n".join(lines)


def usable(rows, leave_out):
    """Calibration rows with a figure; older releases of a configuration count too."""
    return [row for row in rows if row["predicted"] and row["published"]["step_time_s"] and row["calibration"]
            and not (leave_out and row["source"].startswith(leave_out))]


def residuals(rows, ids):
    by_id = {row["id"]: row for row in rows}
    return numpy.array([math.log(by_id[i]["predicted"]["step_time_s"] / by_id[i]["published"]["step_time_s"])
                        for i in ids])


def parameters(priors, rows):
    """Constants that some calibration row can see, directly or through the family."""
    used = {row["device"] for row in rows} | {row["software"] for row in rows}
    families = {family(name) for name in used} - {None}
    found = []
    for kind, table in (("device", DEVICE), ("software", SOFTWARE)):
        for name in sorted(priors[kind]):
            if name not in used and family(name) not in families:
                continue
            for key, (width, top) in table.items():
                if priors[kind][name].get(key, 0) > 0:
                    found.append((kind, name, key, width, top))
    return found


def prior_precision(found):
    covariance = numpy.eye(len(found))
    for i, (kind, name, key, _, _) in enumerate(found):
        for j, (other_kind, other, other_key, _, _) in enumerate(found):
            same = i != j and kind == other_kind and key == other_key
            if same and family(name) is not None and family(name) == family(other):
                covariance[i, j] = FAMILIES[family(name)][0]
    return numpy.linalg.inv(covariance)


def moved(priors, found, theta):
    constants = {kind: {name: dict(table) for name, table in priors[kind].items()}
                 for kind in ("device", "software")}
    for (kind, name, key, width, top), x in zip(found, theta):
        constants[kind][name][key] = min(top, priors[kind][name][key] * math.exp(x * width))
    return constants


def row_weights(rows):
    """Rows of one configuration in several releases, and of one sweep, share the weight of a few."""
    weights = []
    for row in rows:
        weights.append(1.0 if row["newest"] else 0.5)
    return numpy.array(weights)


def start_of(problem, path):
    """The point of an earlier fit, in widths from the priors."""
    if not path:
        return None
    with open(path, "rb") as file:
        earlier = tomllib.load(file)
    theta = numpy.zeros(len(problem.found))
    for j, (kind, name, key, width, _) in enumerate(problem.found):
        value = earlier[kind].get(name, {}).get(key, problem.priors[kind][name][key])
        theta[j] = math.log(value / problem.priors[kind][name][key]) / width
    return theta


SCALE = 0.04  # what a published step time is worth; beyond two of these the loss grows linearly


def huber_weights(weights, value):
    return weights * numpy.minimum(1, 2 * SCALE / numpy.maximum(abs(value), 1e-9)) / SCALE**2


def loss(weights, value, theta, precision):
    small = abs(value) < 2 * SCALE
    rows = numpy.where(small, value**2 / 2, 2 * SCALE * (abs(value) - SCALE)) / SCALE**2
    return float((weights * rows).sum() + theta @ precision @ theta / 2)


class Problem:
    """Calibration rows and the constants that they see; the planner is the function."""

    def __init__(self, args, priors, scratch):
        self.args, self.priors, self.scratch = args, priors, scratch
        self.rows = usable(predict(args.tessera, priors, args.cases, scratch), args.leave_out)
        self.ids = [row["id"] for row in self.rows]
        self.found = parameters(priors, self.rows)
        self.precision = prior_precision(self.found)
        self.weights = row_weights(self.rows)

    def predictions(self, theta):
        constants = moved(self.priors, self.found, theta)
        return predict(self.args.tessera, constants, self.args.cases, self.scratch)

    def value(self, theta):
        return residuals(self.predictions(theta), self.ids)

    def jacobian(self, theta, value):
        """One run per kind of constant: a row sees only its own device and its own software, so the same constant
        of all of them can move at once."""
        columns = numpy.zeros((len(self.ids), len(self.found)))
        index = {(kind, name, key): j for j, (kind, name, key, _, _) in enumerate(self.found)}
        for kind, key in sorted({(kind, key) for kind, _, key, _, _ in self.found}):
            shifted = theta + [0.2 * (k == kind and other == key) for k, _, other, _, _ in self.found]
            change = (self.value(shifted) - value) / 0.2
            for i, row in enumerate(self.rows):
                j = index.get((kind, row[kind], key))
                if j is not None:
                    columns[i, j] = change[i]
        return columns

    def step(self, theta, value, jacobian, weights):
        robust = huber_weights(weights, value)
        normal = jacobian.T @ (robust[:, None] * jacobian) + self.precision
        gradient = jacobian.T @ (robust * value) + self.precision @ theta
        return -numpy.linalg.solve(normal, gradient)


def fit(problem, rounds, theta=None):
    theta = numpy.zeros(len(problem.found)) if theta is None else theta
    value = problem.value(theta)
    print(f"{len(problem.ids)} calibration rows, {len(problem.found)} constants, "
          f"mean error {100 * abs(value).mean():.2f} %", file=sys.stderr, flush=True)
    for number in range(rounds):
        jacobian = problem.jacobian(theta, value)
        move = problem.step(theta, value, jacobian, problem.weights)
        best = None
        for share in (1.0, 0.5, 0.2):
            trial = numpy.clip(theta + share * move, -3, 3)
            new = problem.value(trial)
            total = loss(problem.weights, new, trial, problem.precision)
            if best is None or total < best[0]:
                best = (total, trial, new)
        theta, value = best[1], best[2]
        print(f"round {number + 1}: mean error {100 * abs(value).mean():.2f} % on calibration rows, "
              f"loss {best[0]:.1f}", file=sys.stderr, flush=True)
    return theta, value


def errors_without(problem, left_out):
    """Rows that `left_out` names, of both parts, predicted with constants fitted again from the priors without them
    (two rounds)."""
    everything = problem.weights
    problem.weights = everything * [not left_out(row) for row in problem.rows]
    own, _ = fit(problem, 2)
    problem.weights = everything
    rows = [row for row in problem.predictions(own) if row["predicted"] and left_out(row)
            and row["published"]["step_time_s"]]
    errors = [100 * (row["predicted"]["step_time_s"] / row["published"]["step_time_s"] - 1) for row in rows]
    return {"rows": len(rows), "errors_pct": [round(error, 2) for error in errors],
            "mean_abs_pct": round(float(numpy.mean(numpy.abs(errors))), 2)}


def leave_one_source_out(problem):
    table = []
    for source in sorted({row["source"][:60] for row in problem.rows}):
        table.append({"source": source, **errors_without(problem, lambda row: row["source"].startswith(source))})
        print(f"without {source}: {table[-1]['mean_abs_pct']:.1f} %", file=sys.stderr, flush=True)
    return table


def leave_one_model_out(problem, cases):
    """Of the two sets with targets of their own, each model left out in turn."""
    with open(cases) as file:
        models = {row["id"]: row["model"] for row in csv.DictReader(file)}
    table = []
    for name, start in (("Korthikanti 8", "seqsel-"), ("SimuMax 43", "simumax-")):
        members = {i: model for i, model in models.items() if i.startswith(start) and not i.endswith("-2240gpu")}
        for model in sorted(set(members.values())):
            without = errors_without(problem, lambda row: members.get(row["id"]) == model)
            table.append({"set": name, "model": model, **without})
            print(f"{name} without {model}: {without['mean_abs_pct']:.1f} %", file=sys.stderr, flush=True)
    return table


def leave_one_device_out(problem):
    """Each device left out in turn: its constants are then what the priors and its family say. The width of the
    interval on an unseen device is the 90th percentile of the errors on calibration rows; test rows say how many of
    theirs it covers."""
    table, everything = [], problem.weights
    for device in sorted({row["device"] for row in problem.rows}):
        problem.weights = everything * [row["device"] != device for row in problem.rows]
        own, _ = fit(problem, 2)
        rows = [row for row in problem.predictions(own) if row["predicted"] and row["device"] == device
                and row["published"]["step_time_s"]]
        table += [{"device": device, "calibration": row["calibration"],
                   "error": math.log(row["predicted"]["step_time_s"] / row["published"]["step_time_s"])} for row in rows]
        print(f"without {device}: {100 * numpy.mean([abs(x['error']) for x in table if x['device'] == device]):.1f} %",
              file=sys.stderr, flush=True)
    problem.weights = everything
    # A device counts once, however many rows it has: the next unseen one is one device, too.
    errors, weights = [], []
    for device in {x["device"] for x in table}:
        own = [abs(x["error"]) for x in table if x["device"] == device and x["calibration"]]
        errors += own
        weights += [1 / len(own)] * len(own)
    order = numpy.argsort(errors)
    share = numpy.cumsum(numpy.array(weights)[order]) / sum(weights)
    width = numpy.array(errors)[order][numpy.searchsorted(share, 0.9)]
    devices = []
    for device in sorted({x["device"] for x in table}):
        test = [abs(x["error"]) for x in table if x["device"] == device and not x["calibration"]]
        devices.append({"device": device, "test_rows": len(test),
                        "mean_abs_pct": round(100 * float(numpy.mean(test)), 2) if test else None,
                        "covered": int(sum(x <= width for x in test))})
    return {"half_width": round(math.exp(width) - 1, 3), "devices": devices}


def set_half_widths(constants, rows, value):
    """Ninety per cent of residuals of a generation, shrunk towards those of all with the weight of ten rows."""
    def quantile(list_):
        ordered = sorted(abs(x) for x in list_)
        return ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)) - 1)]
    everywhere = quantile(value)
    for name, table in constants["software"].items():
        own = [x for row, x in zip(rows, value) if row["software"] == name]
        width = (len(own) * quantile(own) + 10 * everywhere) / (len(own) + 10) if own else 1.5 * everywhere
        table["half_width"] = round(math.exp(1.25 * width) - 1, 3)


def write_constants(path, constants):
    note = ("# Made by scripts/fit_training.py from training_priors.toml on the calibration part of\n"
            "# data/published/training_cases.csv; do not edit by hand.\n")
    with open(path, "w") as file:
        file.write(note + to_toml(constants))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--priors", default=PRIORS)
    parser.add_argument("--out", default=OUT)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--leave-out", default="", help="start of a source whose rows are not used")
    parser.add_argument("--start", default="", help="constants of an earlier fit to start from")
    parser.add_argument("--leave-one-source-out", default="", metavar="JSON", help="write that study too")
    parser.add_argument("--leave-one-device-out", default="", metavar="JSON",
                        help="the same by device; it gives the interval on devices that no row has shown")
    parser.add_argument("--leave-one-model-out", default="", metavar="JSON", help="the same by model, for two sets")
    args = parser.parse_args()
    with open(args.priors, "rb") as file:
        priors = tomllib.load(file)
    with tempfile.TemporaryDirectory() as scratch:
        problem = Problem(args, priors, scratch)
        theta, value = fit(problem, args.rounds, start_of(problem, args.start))
        constants = moved(priors, problem.found, theta)
        set_half_widths(constants, problem.rows, value)
        for name, table in constants["device"].items():
            table["rows"] = sum(row["device"] == name for row in problem.rows)
        constants["unseen"] = {"half_width": priors["unseen"]["half_width"]}
        if args.leave_one_device_out:
            study = leave_one_device_out(problem)
            constants["unseen"]["half_width"] = study["half_width"]
            with open(args.leave_one_device_out, "w") as file:
                json.dump(study, file, indent=1)
        write_constants(args.out, constants)
        if args.leave_one_source_out:
            with open(args.leave_one_source_out, "w") as file:
                json.dump(leave_one_source_out(problem), file, indent=1)
        if args.leave_one_model_out:
            with open(args.leave_one_model_out, "w") as file:
                json.dump(leave_one_model_out(problem, args.cases), file, indent=1)


if __name__ == "__main__":
    main()
