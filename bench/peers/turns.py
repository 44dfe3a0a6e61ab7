#!/usr/bin/env python3
"""Times segrun and other frameworks on the same networks, in turns: A B C A B C ...

A case is NETWORK-PROGRAM-BATCH-PRECISION; in it, every one is a process of its own that is warmed
up, kept alive and idle until its turn, so that neighbouring turns see the same machine. Just before
each turn the machine's peak is measured (by ours.c), and over it how much of the processors
somebody else used. Where all of them would not fit into memory together, each is started anew for
each turn. Ratios are taken turn by turn; the median of them counts.

Everyone gets the same weights, pictures (bytes), masks, loss, optimiser and threads. The allocator
of the frameworks is told to keep its memory (MALLOC_*_THRESHOLD_): else glibc gives every large
tensor back to the system, and PyTorch's training takes up to twice as long.

WHO may carry options behind plus signs: ours+no-fuse (options of segc), pytorch+channels_last,
+stock (allocator as it comes), +thp (transparent huge pages for tensors), tinygrad+wino.
"""
import argparse
import fnmatch
import json
import math
import os
import platform
import selectors
import signal
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NETWORKS = ("unet", "resnet34_unet")
CASES = [f"{network}-{work}-{precision}" for precision in ("fp32", "bf16") for network in NETWORKS
         for work in ("train-2", "train-16", "predict-1", "predict-2", "predict-16")]
QUICK = [f"{network}-{work}-fp32" for network in NETWORKS for work in ("train-2", "predict-2")]
TRAINING = ("ours", "pytorch", "pytorch-compiled", "jax", "tinygrad")
INFERENCE = ("ours", "pytorch", "pytorch-compiled", "onnxruntime", "openvino", "jax", "tinygrad")
ONLY_FP32 = ("jax", "tinygrad", "onnxruntime")
PACKAGES = ("torch", "torchvision", "jax", "tinygrad", "onnxruntime", "openvino", "numpy")
KEEP = str(8 << 30)     # bytes from which glibc's malloc gives memory back
TURN_SECONDS = 0.3      # a turn is one run, or as many as take this long
SLOW_SECONDS = 20       # who takes longer than this gets one turn


def says(text):
    print(text, flush=True)


# ---- processes -----------------------------------------------------------------------------------

class Gone(Exception):
    pass


class Side:
    """One of those that are measured: a process that answers lines."""

    def __init__(self, who, case, options):
        self.who, self.options = who, options
        network, program, batch, precision = case.split("-")
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
        if who.split("+")[0] == "ours":
            command = [options.work / "ours", plan_of(who, network, options), program,
                       batch, str(options.threads)] + [precision] * (precision != "fp32")
        else:
            command = [sys.executable, HERE / "side.py", who, network, program, batch, precision,
                       options.work / f"{network}.safetensors", str(options.threads)]
            environment |= settings(who, options)
        self.log = open(options.work / "log" / f"{case}-{who}.txt", "w")
        self.process = subprocess.Popen([str(part) for part in command], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log)
        try:
            self.ready = self.answer(options.start_seconds)
        except Gone:
            self.close()
            raise

    def answer(self, seconds):
        """The next line; Gone where none comes."""
        waiting = selectors.DefaultSelector()
        waiting.register(self.process.stdout, selectors.EVENT_READ)
        if not waiting.select(seconds):
            self.process.kill()
            raise Gone(f"no answer in {seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Gone(self.last_words())
        values = json.loads(line)
        if "error" in values:
            raise Gone(values["error"])
        return values

    def last_words(self):
        lines = Path(self.log.name).read_text().strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self.process.returncode}"

    def ask(self, line):
        self.process.stdin.write((line + "\n").encode())
        self.process.stdin.flush()
        return self.answer(self.options.start_seconds)

    def processor_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, runs):
        """Seconds of a run; and the part of all processors that others used meanwhile."""
        mine, all_, begun = self.processor_seconds(), busy_seconds(), time.perf_counter()
        seconds = self.ask(f"run {runs}")["seconds"]
        wall = time.perf_counter() - begun
        others = busy_seconds() - all_ - (self.processor_seconds() - mine)
        return statistics.fmean(seconds), max(0, others) / (wall * os.cpu_count())

    def close(self):
        """The most memory it had, in bytes."""
        memory = None
        try:
            memory = self.ask("quit")["memory"]
        except (Gone, OSError, KeyError):
            pass
        self.process.kill()
        self.process.wait()
        self.log.close()
        return memory


def busy_seconds():
    """Seconds in which the machine's processors computed for anybody, here or beside us."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def settings(who, options):
    """Environment of a framework."""
    wanted = who.split("+")[1:]
    chosen = {"TORCHINDUCTOR_CACHE_DIR": str(options.work / "inductor"),
              "JAX_COMPILATION_CACHE_DIR": str(options.work / "jax"),
              "CACHEDB": str(options.work / "tinygrad.db")}
    if "stock" not in wanted:
        chosen |= {"MALLOC_MMAP_THRESHOLD_": KEEP, "MALLOC_TRIM_THRESHOLD_": KEEP}
    if "thp" in wanted:
        chosen["THP_MEM_ALLOC_ENABLE"] = "1"
    if "wino" in wanted:
        chosen["WINO"] = "1"
    return chosen


# ---- what is prepared ----------------------------------------------------------------------------

def plan_of(who, network, options):
    """A plan for the host holds all precisions."""
    wanted = [f"--{option}" for option in who.split("+")[1:]]
    plan = options.work / f"{network}{''.join(wanted)}.plan"
    command = [options.build / "segc", ROOT / "models" / f"{network}.seg", "--target", "host",
               *wanted, "-o", plan]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise Gone((done.stderr.strip().splitlines() or ["segc failed"])[0][:300])
    return plan


def in_python(text, *arguments):
    """In a process of its own: this one loads no framework."""
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r})\n{text}",
                    *map(str, arguments)], check=True)


WEIGHTS = """
import torch
from networks import NETWORKS
from safetensors.torch import save_file
torch.manual_seed(0)
tensors = NETWORKS[sys.argv[1]]().state_dict()
save_file({k: v.contiguous() for k, v in tensors.items() if "num_batches" not in k}, sys.argv[2])
"""
EXPORT = """
from onnx_side import export
from safetensors.numpy import load_file
export(sys.argv[1], load_file(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


def prepare(cases, options):
    for case in cases:
        network, program, batch, _ = case.split("-")
        weights = options.work / f"{network}.safetensors"
        if not weights.exists():
            in_python(WEIGHTS, network, weights)
        model = options.work / f"{network}-{batch}.onnx"
        if program == "predict" and not model.exists():
            in_python(EXPORT, network, weights, batch, model)


# ---- a case --------------------------------------------------------------------------------------

def takers(case, options):
    _, program, _, precision = case.split("-")
    names = options.who or (TRAINING if program == "train" else INFERENCE)
    return [who for who in names if precision == "fp32" or who.split("+")[0] not in ONLY_FP32]


def fits(case, names):
    """Whether they fit into memory together: as measured for U-Net, rounded up."""
    _, program, batch, _ = case.split("-")
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    picture = {True: 0.3e9, False: 0.6e9} if program == "train" else {True: 0.1e9, False: 0.2e9}
    needed = sum(1e9 + picture[who.startswith("ours")] * int(batch) for who in names)
    return needed < 0.9 * free


class Row:
    """What is known of one of them in one case."""

    def __init__(self, who, case):
        network, program, batch, precision = case.split("-")
        base, *variant = who.split("+")
        self.values = {"network": network, "program": program, "batch": int(batch),
                       "precision": precision, "who": base, "variant": "+".join(variant),
                       "seconds": [], "peak": [], "bandwidth": [], "others": [], "memory": None}

    def turn(self, side, probe):
        peak = probe.ask("peak")
        runs = 1
        if self.values["seconds"]:
            runs = math.ceil(TURN_SECONDS / self.values["seconds"][-1])
        seconds, others = side.run(min(runs, 50))
        for key, value in (("seconds", seconds), ("others", round(others, 4)),
                           ("peak", peak["flops"]), ("bandwidth", peak["bytes"])):
            self.values[key].append(value)
        self.values |= {key: value for key, value in side.ready.items() if key != "ready"}

    def over(self, memory):
        self.values["memory"] = max(memory or 0, self.values["memory"] or 0) or None

    def failed(self, error):
        self.values["error"] = str(error)
        says(f"  {self.values['who']}: {error}")

    def wanted(self, turn):
        seconds = self.values["seconds"]
        return "error" not in self.values and (turn == 0 or seconds[-1] < SLOW_SECONDS
                                               or self.values["who"] == "ours")


def measure(case, options):
    """Rows of all that take part."""
    names = takers(case, options)
    together = fits(case, names)
    says(f"{case}: {', '.join(names)}" + ("" if together else "; one process at a time"))
    rows, sides = [Row(who, case) for who in names], {}
    probe = Side("ours", f"{NETWORKS[0]}-predict-1-fp32", options)
    try:
        for row, who in zip(rows, names):
            try:
                if together:
                    sides[who] = Side(who, case, options)
            except Gone as error:
                row.failed(error)
        for turn in range(options.turns):
            for row, who in zip(rows, names):
                if row.wanted(turn) and time.monotonic() < options.end:
                    one_turn(row, who, sides.get(who), case, probe, options)
    finally:
        probe.close()
        for who, side in sides.items():
            rows[names.index(who)].over(side.close())
    return [row.values for row in rows]


def one_turn(row, who, side, case, probe, options):
    alone = None
    try:
        if not side:
            side = alone = Side(who, case, options)
        row.turn(side, probe)
    except (Gone, OSError) as error:
        row.failed(error)
    if alone:
        row.over(alone.close())


# ---- results -------------------------------------------------------------------------------------

def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    return statistics.quantiles(values, n=4, method="inclusive")


def ratios(row, ours):
    return [theirs / mine for theirs, mine in zip(row["seconds"], ours["seconds"])]


def print_case(rows):
    ours = next((row for row in rows if row["who"] == "ours" and row["seconds"]), None)
    for row in rows:
        name = "+".join(filter(None, (row["who"], row["variant"])))
        if not row["seconds"]:
            says(f"  {name:<32} {row.get('error', 'not measured')[:66]}")
            continue
        low, middle, high = quartiles(row["seconds"])
        text = f"  {name:<32} {1e3 * middle:9.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f})"
        if ours and row is not ours:
            low, middle, high = quartiles(ratios(row, ours))
            text += f", x {middle:.2f} ({low:.2f}-{high:.2f})"
        text += f", {(row['memory'] or 0) / 2 ** 20:.0f} MiB"
        if statistics.median(row["others"]) > 0.05:
            text += f", {100 * statistics.median(row['others']):.0f} % taken by others"
        says(text)


COLUMNS = (("pytorch", "eager"), ("pytorch-compiled", "compiled"), ("jax", "jax"),
           ("tinygrad", "tinygrad"), ("onnxruntime", "onnxrt"), ("openvino", "openvino"))


def best_of(rows, who):
    """The fastest variant: everyone at its best."""
    fine = [row for row in rows if row["who"] == who and row["seconds"]]
    return min(fine, key=lambda row: statistics.median(row["seconds"]), default=None)


def print_table(rows):
    """A line a case: ours in milliseconds, how many times as long the others took, memory."""
    says(f"\n{'network':<14}{'program':<8}{'batch':>6} {'type':<5}{'ours ms':>9}{'of peak':>8}"
         + "".join(f"{title:>9}" for _, title in COLUMNS))
    cases = {}
    for row in rows:
        cases.setdefault(case_of(row), []).append(row)
    for case, members in cases.items():
        ours = best_of(members, "ours")
        text = f"{case[0]:<14}{case[1]:<8}{case[2]:>6} {case[3]:<5}"
        if ours:
            seconds = statistics.median(ours["seconds"])
            part = ours["flops"] / seconds / statistics.median(ours["peak"])
            text += f"{1e3 * seconds:9.1f}{100 * part:7.0f}%"
        else:
            text += f"{'-':>9}{'-':>8}"
        for who, _ in COLUMNS:
            row = best_of(members, who)
            text += f"{statistics.median(ratios(row, ours)):8.2f}x" if row and ours else f"{'-':>9}"
        says(text)
    says("\nours in ms; of peak: operations by the definition over the multiply-adds measured "
         "beside it;\nthe others: how many times as long as ours, median of the turns")


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def versions():
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return known


def facts(options):
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                            capture_output=True, text=True).stdout.strip()
    return {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit,
            "machine": platform.platform(), "processor": processor(), "threads": options.threads,
            "size": 256, "versions": versions()}


def case_of(row):
    return tuple(row[key] for key in ("network", "program", "batch", "precision"))


def write(path, options, rows):
    """Cases of earlier runs stay in the file, unless they were measured again."""
    try:
        old = json.loads(path.read_text())["rows"]
    except FileNotFoundError:
        old = []
    new = {case_of(row) for row in rows}
    kept = [row for row in old if case_of(row) not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with open(temporary, "w") as out:
        head = json.dumps(facts(options), indent=1)
        lines = ",\n  ".join(json.dumps(row) for row in kept + rows)
        out.write(head[:-2] + ',\n "rows": [\n  ' + lines + "]\n}\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)
    return kept + rows


def parse():
    parser = argparse.ArgumentParser(description="Times segrun and its peers, in turns.",
                                     epilog="cases: " + " ".join(CASES))
    parser.add_argument("--only", default="", help="cases whose name begins so (unet-train), or is "
                        "of this pattern (*-2-fp32); several between commas")
    parser.add_argument("--who", default="", help="who takes part, between commas; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer cases and turns, no tinygrad")
    parser.add_argument("--turns", type=int, help="turns of each (default 9; quick 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=math.inf,
                        help="start no turn after that; what was measured counts")
    parser.add_argument("--start-seconds", type=float, default=600,
                        help="who is not ready by then, compiling included, is left out")
    parser.add_argument("--json", type=Path, help="write all numbers there; cases of earlier "
                        "runs in it stay, unless measured again")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where segc is")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "peers",
                        help="for plans, weights, exports and caches")
    options = parser.parse_args()
    options.end = time.monotonic() + options.seconds
    options.who = list(filter(None, options.who.split(",")))
    options.turns = options.turns or (3 if options.quick else 9)
    if options.quick and not options.who:
        global TRAINING, INFERENCE
        TRAINING, INFERENCE = TRAINING[:-1], INFERENCE[:-1]
    patterns = [part if "*" in part else f"{part}*" for part in options.only.split(",")]
    options.cases = [case for case in (QUICK if options.quick and not options.only else CASES)
                     if any(fnmatch.fnmatch(case, pattern) for pattern in patterns)]
    if not options.cases:
        parser.error(f"--only {options.only}: no such case")
    return options


def stop(*_):
    raise KeyboardInterrupt


def main():
    options = parse()
    signal.signal(signal.SIGTERM, stop)
    (options.work / "log").mkdir(parents=True, exist_ok=True)
    prepare(options.cases, options)
    says(f"{processor()}, {options.threads} threads; "
         + ", ".join(f"{name} {version}" for name, version in versions().items()))
    rows, known = [], []
    for case in options.cases:
        if time.monotonic() < options.end:
            rows.extend(measured := measure(case, options))
            print_case(measured)
        known = write(options.json, options, rows) if options.json else rows
    print_table(known)
    if options.json:
        says(f"{options.json}")


if __name__ == "__main__":
    main()
