#!/usr/bin/env python3
"""Times PyTorch on one NVIDIA GPU, on the networks that segbench times: see bench/gpu.sh.

Modes: eager; compiled (torch.compile, default); autotuned (max-autotune, which records CUDA
graphs). All in channels_last, with cudnn.benchmark, gradients set to None and the fused Adam. bf16
is autocast; tf32 and fp32 are float32 with the tensor cores allowed or not. A training step is
bytes in, normalisation, forward, binary cross entropy of the logits in float32, backward and Adam;
predict is bytes in, probabilities out. As for ours, runs are timed back to back in groups of at
least ten milliseconds, and the median of the groups is the result.

Each network and mode runs in a process of its own, so that one that compiles for too long can be
stopped: what it measured until then stays.
"""
import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

MODES = {"eager": None, "compiled": "default", "autotuned": "max-autotune"}
PROGRAMS = [("train", 16), ("predict", 16), ("train", 2), ("predict", 1), ("predict", 2)]
TIMINGS = 20
SIZE = 256


# ---- one process: a network, a mode, some precisions ---------------------------------------------

class Step:
    """A callable that does one run of a program."""

    def __init__(self, torch, network, mode, precision, program, batch):
        self.torch, self.precision, self.program = torch, precision, program
        network.train(program == "train")
        self.forward = network if mode == "eager" else torch.compile(network, mode=MODES[mode])
        self.images = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8,
                                    device="cuda").to(memory_format=torch.channels_last)
        self.masks = torch.randint(0, 2, (batch, 1, SIZE, SIZE), device="cuda").float()
        self.adam = torch.optim.Adam(network.parameters(), 1e-5, fused=True)

    def autocast(self):
        return self.torch.autocast("cuda", self.torch.bfloat16, enabled=self.precision == "bf16")

    def __call__(self):
        torch = self.torch
        if self.program == "predict":
            with torch.inference_mode(), self.autocast():
                return torch.sigmoid(self.forward(self.images).float())
        self.adam.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.forward(self.images)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), self.masks)
        loss.backward()
        self.adam.step()
        return loss


def timed(torch, step):
    """Seconds of the first run, and of a run in each timing."""
    def run(n):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(n):
            step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / n

    first, spent = run(1), 0
    while spent < 0.3:
        spent += run(3)
    inner = min(1000, math.ceil(0.01 / run(1)))
    return first, inner, [run(inner) for _ in range(TIMINGS)]


def busy(torch, step):
    """Seconds in which the GPU computed in one run, and how many kernels it ran."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if "cuda" in str(event.device_type).lower()]
    seconds = sum(event.time_range.elapsed_us() for event in events) / 1e6
    return seconds, len(events)


def measure(torch, network, name, mode, precision, program, batch):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.cuda.reset_peak_memory_stats()
    step = Step(torch, network, mode, precision, program, batch)
    first, inner, timings = timed(torch, step)
    seconds, kernels = busy(torch, step)
    median = sorted(timings)[len(timings) // 2]
    return {"model": name, "mode": mode, "precision": precision, "program": program,
            "batch": batch, "seconds": median, "images_per_second": batch / median,
            "runs_a_timing": inner, "timings": timings, "busy_seconds": seconds,
            "kernels": kernels, "first_seconds": first,
            "device_bytes": torch.cuda.max_memory_allocated()}


def work(name, mode, precisions):
    """A line of JSON for every measurement."""
    import torch
    from networks import NETWORKS
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    for precision in precisions.split(","):
        network = NETWORKS[name]().cuda().to(memory_format=torch.channels_last)
        for program, batch in PROGRAMS:
            try:
                row = measure(torch, network, name, mode, precision, program, batch)
            except Exception as error:  # of any kind: the other rows still count
                row = {"model": name, "mode": mode, "precision": precision, "program": program,
                       "batch": batch, "error": str(error)[:300]}
            print(json.dumps(row), flush=True)


# ---- all of them ---------------------------------------------------------------------------------

def plan_of_work():
    """In the order of their worth: what comes last may not be reached."""
    networks = ("unet", "resnet34_unet")
    for name in networks:
        yield name, "eager", "bf16,tf32,fp32", 60
    for name in networks:
        yield name, "compiled", "bf16,tf32", 120
    for name in networks:
        yield name, "autotuned", "bf16,tf32", 240


def line_of(row):
    """As segbench -1 prints it, for the table of bench/gpu.sh."""
    label = f"{row['mode']}-{row['precision']}"
    return (f"{row['model'][:14]:<14} {row['program']:<8} {row['batch']:4} {label:<14} "
            f"{1e3 * row['seconds']:10.3f} ms {row['images_per_second']:9.1f} img/s "
            f"busy {1e3 * row['busy_seconds']:.3f} ms")


def run_process(name, mode, precisions, seconds):
    """The measurements of one process, and what it said when it failed."""
    command = [sys.executable, __file__, "--work", name, mode, precisions]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        errors = f"stopped after {seconds:.0f} s"
    rows = []
    for text in out.splitlines():
        try:
            rows.append(json.loads(text))
        except json.JSONDecodeError:
            pass
    return rows, errors.strip()[-600:] if process.returncode else ""


def facts():
    import torch
    return {"torch": torch.__version__, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "device": torch.cuda.get_device_name(0)}


def write(path, result):
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Times PyTorch on segbench's networks.")
    parser.add_argument("--seconds", type=float, default=420, help="for all together")
    parser.add_argument("--json", help="write all numbers here")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(*arguments.work)
    try:
        result = {"versions": facts(), "rows": [], "notes": []}
    except (ImportError, RuntimeError, AssertionError) as error:
        print(f"peers: skipped: {error}")
        return write(arguments.json, {"skipped": str(error)})
    print("peers: " + ", ".join(f"{key} {value}" for key, value in result["versions"].items()))
    end = time.monotonic() + arguments.seconds
    for name, mode, precisions, most in plan_of_work():
        left = end - time.monotonic()
        if left < 10:
            result["notes"].append(f"{name}, {mode}: no time left")
            continue
        rows, problem = run_process(name, mode, precisions, min(left, most))
        result["rows"] += rows
        for row in rows:
            print(line_of(row) if "seconds" in row else f"peers: {row}", flush=True)
        if problem:
            result["notes"].append(f"{name}, {mode}: {problem}")
            print(f"peers: {result['notes'][-1]}", flush=True)
        write(arguments.json, result)
    return write(arguments.json, result)


if __name__ == "__main__":
    main()
