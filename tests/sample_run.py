"""A run directory as docs/run_directory.md describes it, made up for tests of the report.

    python3 tests/sample_run.py DIR      writes one, to look at its page
"""
import json
import math
import pathlib
import random
import sys

STEPS, EXPERTS, RANKS, KILL_STEP, SNAPSHOT = 120, 8, 4, 58, 55


START = 1_800_000_000  # seconds since 1970


def metrics(rng):
    time_s, entropy = 3.0, 7.1
    # The kill after KILL_STEP takes the state back to SNAPSHOT.
    order = [(step, 0) for step in range(KILL_STEP + 1)] + [(step, 1) for step in range(SNAPSHOT, STEPS)]
    skew = [rng.uniform(0.5, 1.8) for _ in range(EXPERTS)]
    for step, generation in order:
        if generation == 1 and step == SNAPSHOT:
            time_s += 2.9
        seconds = rng.uniform(0.85, 1.0) + (0.6 if step == 0 else 0)
        time_s += seconds
        fade = math.exp(-step / 30)
        tokens = [int(768 * 6 * 2 * (1 + (share - 1) * fade) * rng.uniform(0.95, 1.05)) for share in skew]
        line = {"step": step, "time": START + time_s, "generation": generation,
                "loss": 5.2 + 3.1 * math.exp(-step / 22) + rng.gauss(0, 0.05), "aux_loss": 0.01, "gradient_norm": 0.8,
                "learning_rate": 0.003, "tokens": 3072, "seconds": seconds, "tokens_per_s": 3072 / seconds,
                "exposed_comm_s": 0.08, "hidden_comm_s": 0.15, "bytes_sent": 18874368, "expert_tokens": tokens,
                "memory_peak_bytes": [91e6, 91e6, 70e6, 70e6]}
        if step % 20 == 19:
            line["valid_loss"] = 5.3 + 3.1 * math.exp(-step / 22)
        yield line


def timeline():
    events = []
    for rank in range(RANKS):
        events.append({"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": f"rank {rank}"}})
        events.append({"ph": "M", "name": "thread_name", "pid": rank, "tid": 1, "args": {"name": "communication"}})
        for slot in range(6):
            start = 1000 * (60 * (rank // 2) + 130 * slot)
            events.append({"ph": "X", "name": "forward", "pid": rank, "tid": 0, "ts": start, "dur": 42000, "args": {"slot": slot}})
            events.append({"ph": "X", "name": "backward", "pid": rank, "tid": 0, "ts": start + 45000, "dur": 80000, "args": {"slot": slot}})
        events.append({"ph": "X", "name": "reduce", "pid": rank, "tid": 1, "ts": 780000, "dur": 90000, "args": {}})
        events.append({"ph": "X", "name": "optimizer", "pid": rank, "tid": 0, "ts": 880000, "dur": 40000, "args": {}})
    return {"traceEvents": events}


def plan():
    def result(layout, seconds):
        return {"layout": {"dp": 1, "fsdp": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "schedule": "1f1b", "recompute": "none", **layout},
                "step_time_s": seconds, "step_time_s_low": seconds * 0.9, "step_time_s_high": seconds * 1.1,
                "tokens_per_s_per_gpu": 3072 / seconds / 4, "memory_gib": {"peak": 0.088, "by_stage": [0.088, 0.066]},
                "breakdown": {"compute": 0.7, "ep": 0.05, "pp": 0.02, "dp": 0.06, "bubble": 0.08, "optimizer": 0.03},
                "provenance": [{"figure": "gemm", "source": "measured here: kernels of avx2"}]}
    return {"results": [result({"fsdp": 4, "ep": 4}, 0.88), result({"fsdp": 2, "pp": 2, "ep": 2}, 0.94), result({"dp": 4}, 1.1)]}


def write(folder, seed=1, text="def forward(self"):
    rng = random.Random(seed)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(metrics(rng))

    def dump(name, value):
        (folder / name).write_text(json.dumps(value))

    dump("run.json", {
        "format": 1, "name": "sample", "status": "finished", "command": "tessera train --config examples/moe.toml",
        "started": "2026-11-21T03:50:00Z", "wall_s": lines[-1]["time"] - START, "seed": seed, "steps": STEPS,
        "model": {"model_type": "qwen3_moe", "hidden_size": 256}, "parameters": {"total": 12_900_000, "active": 5_800_000},
        "work": {"seq": 128, "micro_batch": 2, "global_batch": 24, "precision": "float32"},
        "layout": "fsdp=2,pp=2,ep=2", "processes": RANKS,
        "data": {"origin": "sources of torch", "tokens": 5_200_000, "unigram_entropy_nats": 7.1},
        "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 8.0}, "energy_kwh": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lost = next(line["time"] for line in lines if line["step"] == KILL_STEP) + 0.05
    resumed = next(line["time"] for line in lines if line["generation"] == 1)
    events = [{"time": START + 3.0, "generation": 0, "event": "started"},
              {"time": lost + 0.2, "generation": 1, "event": "lost", "rank": 2, "detail": "worker 2 (rank 2) killed by signal 9", "detect_s": 0.2},
              {"time": resumed, "generation": 1, "event": "resumed", "source": "memory", "resume_s": resumed - lost - 0.2,
               "steps_redone": KILL_STEP - SNAPSHOT + 1, "layout": "fsdp=2,pp=2,ep=2"},
              {"time": lines[-1]["time"], "generation": 1, "event": "finished"}]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    dump("plan.json", plan())
    dump("timeline.json", timeline())
    dump("memory.json", {"ranks": [
        {"rank": rank, "process_base_bytes": 210e6, "peak_bytes": 91e6 if rank < 2 else 70e6,
         "classes": {"weights": 24e6, "gradients": 24e6, "optimizer": 13e6, "activations": 30e6 if rank < 2 else 9e6}}
        for rank in range(RANKS)]})
    dump("samples.json", [{"prompt": text, "text": ", x):\n    return self.linear(x) </script><b>", "tokens": 64,
                           "tokens_per_s": 41.0, "ttft_s": 0.05, "layout": "tp=2"}])
    (folder / "calibration.toml").write_text('[gemm]\nfloat32_gflops = 88.2\n[link]\nname = "shared memory"\n')


if __name__ == "__main__":
    write(sys.argv[1])
