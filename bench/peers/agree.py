#!/usr/bin/env python3
"""Whether all that bench/peers measures compute the same, at full size: 256 x 256, float32.

From the same weights (a safetensors file) and two pictures: the probabilities, and of one step of
training the loss, the gradients of all parameters and what Adam moved the weights by. Ours in
each way to compute convolutions, PyTorch eager and compiled, JAX, tinygrad; ONNX Runtime and
OpenVINO the probabilities. The truth is PyTorch in float64; PyTorch's own float32 says what
rounding does, and limits follow it where it is larger (the head of check.py says why). check.py
compares more, on small inputs; this one what is timed.

Of gradients: |a - b| / |b| of all parameters as one vector, and of the worst tensor. Moved: the
same of what the weights moved by, and (adam) against what Adam makes of one's own gradients: its
first step hardly depends on a gradient's size, so that rounding decides where gradients are near 0.
"""
import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LR = "1e-5"
NETWORKS = ("unet", "resnet34_unet")
WAYS = {"ours": [], "ours-direct": ["--no-winograd"]}
PEERS = ("pytorch-compiled", "jax", "tinygrad", "onnxruntime", "openvino")
INFERENCE = ("onnxruntime", "openvino")
LIMITS = {"probabilities": 1e-5, "loss": 1e-5, "gradients": 1e-4, "worst": 1e-4, "moved": 2e-3,
          "adam": 1e-3}
SLACK = 4


# ---- one peer, in a process of its own -----------------------------------------------------------

def save(path, probabilities, step=None):
    arrays = {"probabilities": probabilities}
    if step:
        loss, gradients, moved = step
        arrays |= {"loss": np.float64(loss)}
        arrays |= {f"gradients {name}": value for name, value in gradients.items()}
        arrays |= {f"moved {name}": value for name, value in moved.items()}
    np.savez(path, **arrays)


def work(who, network, folder, threads):
    import side
    data = np.load(folder / "pictures.npz")
    given = folder / f"{network}.safetensors", threads, (data["images"], data["masks"])
    made = side.make(who, network, "predict", 2, "fp32", *given)
    probabilities, step = made.predict(), None
    if who not in INFERENCE:
        step = side.make(who, network, "train", 2, "fp32", *given).step()
    save(folder / f"{who}.npz", probabilities, step)


def exact(network, folder, dtype):
    """PyTorch in float64 or float32: the same for its own code as for the others."""
    import torch
    from check import Training, load_file, network_of
    weights = load_file(folder / f"{network}.safetensors")
    data = np.load(folder / "pictures.npz")
    images, masks = torch.from_numpy(data["images"]), torch.from_numpy(data["masks"])
    kind = getattr(torch, dtype)
    with torch.no_grad():
        probabilities = torch.sigmoid(network_of(network, {}, weights, kind).eval()(
            images.to(kind))).numpy()
    training = Training(network, {}, weights, float(LR), kind)
    loss = training.step(images, masks)
    parameters = dict(training.network.named_parameters())
    gradients = {name: p.grad.numpy() for name, p in parameters.items()}
    moved = {name: (p.detach().double() - weights[name].double()).numpy()
             for name, p in parameters.items()}
    save(folder / f"{dtype}.npz", probabilities, (loss, gradients, moved))


def prepare(network, folder, data):
    """Weights, pictures and the export; batch norms that do something, as in check.py."""
    import torch
    from check import random_weights, read_split, save_file
    from onnx_side import export
    torch.set_num_threads(2)
    weights = random_weights(network, {})
    save_file(weights, folder / f"{network}.safetensors")
    _, images, masks = read_split(data, "train", 256, 2)
    np.savez(folder / "pictures.npz", images=images.numpy(), masks=masks.numpy())
    export(network, {name: value.numpy() for name, value in weights.items()}, 2,
           folder / f"{network}-2.onnx")


# ---- ours ----------------------------------------------------------------------------------------

def ours(who, network, folder, data, build):
    """By the programs alone: checkpoints hold Adam's first moment, a tenth of the gradient."""
    from check import Programs, load_file
    import torch
    programs = Programs(build, folder)
    weights = folder / f"{network}.safetensors"
    plan = folder / "ours.plan"
    programs.run(programs.segc, ROOT / "models" / f"{network}.seg", "--target", "host", *WAYS[who],
                 "-o", plan)
    images = torch.from_numpy(np.load(folder / "pictures.npz")["images"])
    probabilities = programs.outputs(plan, weights, "predict", 2, images, (2, 1, 256, 256))
    after, losses = programs.train(plan, network, data, "-m", weights, "-e", 1, "-b", 2, "--limit",
                                   2, "--lr", LR, "--flip", "n")
    before = load_file(weights)
    mark = "optimizer.exp_avg."
    gradients = {name[len(mark):]: value.numpy() / np.float32(0.1)
                 for name, value in after.items() if name.startswith(mark)}
    moved = {name: (after[name].double() - before[name].double()).numpy() for name in gradients}
    save(folder / f"{who}.npz", probabilities.numpy(), (losses[0], gradients, moved))


# ---- comparing -----------------------------------------------------------------------------------

def distance(pairs):
    """|a - b| / |b| of tensors taken as one vector."""
    squares = [(np.sum((a.astype(np.float64) - b) ** 2), np.sum(b.astype(np.float64) ** 2))
               for a, b in pairs]
    return math.sqrt(sum(apart for apart, _ in squares) / sum(size for _, size in squares))


def errors(arrays, truth):
    """The error of each kind; those that are missing are left out."""
    found = {"probabilities": np.abs(arrays["probabilities"] - truth["probabilities"]).max()}
    if "loss" not in arrays:
        return found
    found["loss"] = abs(arrays["loss"] - truth["loss"])
    names = [name.partition(" ")[2] for name in truth if name.startswith("gradients ")]
    pairs = [(arrays[f"gradients {name}"], truth[f"gradients {name}"]) for name in names]
    found["gradients"] = distance(pairs)
    found["worst"] = max(distance([pair]) for pair in pairs)
    moved = [arrays[f"moved {name}"] for name in names]
    found["moved"] = distance([(a, truth[f"moved {name}"]) for a, name in zip(moved, names)])
    wanted = [-float(LR) * g / (np.abs(g.astype(np.float64)) + 1e-8) for g, _ in pairs]
    found["adam"] = distance(zip(moved, wanted))
    return found


def compare(network, folder, names):
    """Rows (who, kind, error, limit, good)."""
    truth = np.load(folder / "float64.npz")
    truth = {name: truth[name] for name in truth.files}
    own = errors(np.load(folder / "float32.npz"), truth)
    rows = []
    print(f"\n{network}, 256 x 256, batch 2: errors against PyTorch in float64")
    print(f"  {'':<18}" + "".join(f"{kind:>14}" for kind in LIMITS))
    print(f"  {'PyTorch, float32':<18}" + "".join(f"{own[kind]:14.2e}" for kind in LIMITS))
    for who in names:
        path = folder / f"{who}.npz"
        if not path.exists():
            print(f"  {who:<18}   failed: see above")
            rows.append((who, "", None, None, False))
            continue
        found, text = errors(np.load(path), truth), f"  {who:<18}"
        for kind, limit in LIMITS.items():
            if kind not in found:
                text += f"{'-':>14}"
                continue
            error, limit = found[kind], max(limit, SLACK * own[kind])
            good = bool(error <= limit)
            rows.append((who, kind, float(error), limit, good))
            text += f"{error:14.2e}" if good else f"{'FAIL ' + format(error, '.2e'):>14}"
        print(text, flush=True)
    return rows


def run_apart(*arguments):
    done = subprocess.run([sys.executable, __file__, "--part", *map(str, arguments)],
                          capture_output=True, text=True)
    if done.returncode:
        print("\n".join(done.stderr.strip().splitlines()[-3:]))


def agree(network, folder, options):
    from check import Programs
    data = options.data
    if not data:
        data = folder / "data"
        Programs.run(options.build / "segrun", "data", "synth", data, "--count", 10)
    prepare(network, folder, data)
    for dtype in ("float64", "float32"):
        run_apart("exact", network, folder, dtype)
    ways = [who for who in WAYS if not options.who or who in options.who]
    peers = [who for who in PEERS if not options.who or who in options.who]
    for who in ways:
        ours(who, network, folder, data, options.build)
    for who in peers:
        run_apart("peer", network, folder, who)
    return compare(network, folder, ways + peers)


def part(what, network, folder, name):
    if what == "exact":
        exact(network, Path(folder), name)
    else:
        work(name, network, Path(folder), 2)


def main():
    parser = argparse.ArgumentParser(description="Compares ours and the peers at full size.")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--data", help="a data set in the pets' layout; default: one is drawn")
    parser.add_argument("--only", default="", help="networks whose name begins so")
    parser.add_argument("--who", default="", help="some only, between commas")
    parser.add_argument("--json", type=Path, help="write the errors there")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return part(*options.part)
    options.who = list(filter(None, options.who.split(",")))
    results = {}
    for network in NETWORKS:
        if network.startswith(options.only):
            with tempfile.TemporaryDirectory() as folder:
                results[network] = agree(network, Path(folder), options)
    rows = [row for some in results.values() for row in some]
    failed = sum(not row[-1] for row in rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
