#!/usr/bin/env python3
"""Compares segrun with PyTorch, number by number, on small inputs.

For each case (a model with its options) and from the same random weights:
  names      parameters and buffers, their shapes and their counts; the encoder's are torchvision's
  initial    the values segrun starts from: bounds, means and deviations as PyTorch's defaults
  predict    probabilities, with batch norms folded (predict) and not (evaluate)
  steps      four steps, each from where ours stood before it: loss, gradients (in Adam's first
             moment), what the weights moved by, running statistics
  epochs     losses of two epochs on end: shuffled, flipped, the last batch short
  scores     every number of segrun eval, by the definitions
Pictures are decoded and resized by Pillow.

PyTorch runs in float64, which is the truth, and in float32, which says what rounding alone does. A
value within rounding of a relu's or a max pool's switch can fall on either side, and then a whole
pixel's gradient comes or goes. Every second step of these small networks shows it somewhere, by up
to some per cent of a tensor, PyTorch's in float32 too, and training on multiplies it. So every step
starts anew from our checkpoint, and each tensor is judged by the best of the steps: what is wrong
by rule is wrong in all of them. The largest error of all steps is printed beside PyTorch's.
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from networks import NETWORKS, Resnet34Encoder

ROOT = Path(__file__).resolve().parents[2]
SLACK = 4       # an error may be this many times PyTorch's in float32
STEPS = 4
LR = 1e-4
SMALL_LR = 1e-6     # for steps on end: see above
CASES = [
    ("unet", {"width": 8, "size": 64}),
    ("unet", {"width": 12, "size": 50}),
    ("resnet34_unet", {"size": 64}),
    ("resnet34_unet", {"size": 70, "pool_padding": 0}),
    ("resnet34_unet_paper", {"size": 64}),
    ("resnet34_unet_paper", {"size": 70, "stem_padding": 2}),
]
COUNTS = {"unet": 31_037_633, "resnet34_unet": 24_427_186, "resnet34_unet_paper": 22_853_978}


# ---- results -------------------------------------------------------------------------------------

class Results:
    def __init__(self):
        self.failed = self.passed = 0

    def say(self, good, what, text):
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what:<34} {text}", flush=True)

    def number(self, what, error, limit, own=None, where=""):
        """error: ours; own: PyTorch's in float32, where it may excuse ours."""
        allowed = max(limit, SLACK * own) if own is not None else limit
        theirs = f", PyTorch {own:.2e}" if own is not None else ""
        self.say(bool(error <= allowed), what, f"{error:.2e} (limit {limit:.0e}{theirs})  {where}")


def relative_errors(ours, truth):
    """|a - b| / |b| of each tensor."""
    return {name: (ours[name].double() - b.double()).norm().item() / (b.double().norm().item() or 1)
            for name, b in truth.items()}


def best_and_largest(errors):
    """Of the steps' errors of each tensor: the worst tensor in its best step; all in all."""
    best = {name: min(step[name] for step in errors) for name in errors[0]}
    worst = max(best, key=best.get)
    return best[worst], worst, max(max(step.values()) for step in errors)


# ---- our programs --------------------------------------------------------------------------------

class Programs:
    def __init__(self, build, work):
        self.segc, self.segrun, self.work = build / "segc", build / "segrun", work
        self.outputs_program = work / "outputs"
        self.run(os.environ.get("CC", "cc"), "-std=gnu17", "-O2", "-D_GNU_SOURCE=",
                 f"-I{ROOT}/runtime", "-o", self.outputs_program,
                 Path(__file__).with_name("outputs.c"), build / "runtime.a", "-fopenmp", "-ldl",
                 "-lpthread", "-lm", "-Wl,--no-as-needed", "-lgomp")

    @staticmethod
    def run(*command, data=None):
        done = subprocess.run([str(part) for part in command], input=data, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.decode()}")
        return done.stdout

    def compile(self, model, options):
        plan = self.work / ("-".join([model, *(f"{k}{v}" for k, v in options.items())]) + ".plan")
        defines = [word for key, value in options.items() for word in ("-D", f"{key}={value}")]
        self.run(self.segc, ROOT / "models" / f"{model}.seg", *defines, "-o", plan)
        return plan

    def outputs(self, plan, weights, program, batch, pictures, shape, *name):
        floats = self.run(self.outputs_program, plan, weights, program, batch, *name,
                          data=pictures.numpy().tobytes())
        return torch.from_numpy(np.frombuffer(floats, np.float32).copy()).reshape(shape)

    def train(self, plan, model, data, *options):
        """The last checkpoint: tensors, and the train loss of every epoch."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            self.run(self.segrun, "train", plan, "--data", data, "-p", folder,
                     "--cache", "none", "-q", *options)
            path = Path(folder) / f"{model}.last.safetensors"
            with safe_open(path, "pt") as file:
                rows = [line.split() for line in file.metadata()["curves"].splitlines()]
            return load_file(path), [float(row[1]) for row in rows]

    def evaluate(self, plan, weights, data, batch, limit, threshold):
        """The scores of the test split, and the rows of its pictures by name."""
        scores, table = self.work / "scores.json", self.work / "scores.csv"
        self.run(self.segrun, "eval", plan, "-m", weights, "--data", data, "--split", "test", "-b",
                 batch, "--limit", limit, "--threshold", f"{threshold:.12f}", "--json", scores,
                 "--csv", table, "--cache", "none", "-q")
        with open(table, newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        return json.loads(scores.read_text()), rows


# ---- the data set, by Pillow ---------------------------------------------------------------------

def read_split(data, split, size, limit):
    """Names, pictures [n, 3, size, size] and masks [n, 1, size, size] as bytes."""
    file = "test.txt" if split == "test" else "trainval.txt"
    lines = (Path(data) / "annotations" / file).read_text().splitlines()
    names = [line.split()[0] for line in lines if line and not line.startswith("#")]
    if split != "test":
        names = [name for i, name in enumerate(names) if (i % 10 == 0) == (split == "valid")]
    names, pictures, masks = names[:limit], [], []
    for name in names:
        image = Image.open(Path(data) / "images" / f"{name}.jpg").convert("RGB")
        trimap = Image.open(Path(data) / "annotations" / "trimaps" / f"{name}.png")
        image = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        trimap = np.asarray(trimap.resize((size, size), Image.Resampling.NEAREST))
        pictures.append(image.transpose(2, 0, 1))
        masks.append(trimap[None] != 2)
    return (names, torch.from_numpy(np.stack(pictures)),
            torch.from_numpy(np.stack(masks).astype(np.uint8)))


GOLDEN, WORD = 0x9e3779b97f4a7c15, (1 << 64) - 1


def mix(x):
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & WORD
    x = (x ^ x >> 27) * 0x94d049bb133111eb & WORD
    return x ^ x >> 31


def stream(seed, epoch, use):
    return mix(mix(mix(seed + GOLDEN & WORD) + epoch & WORD) + use & WORD)


def epoch_order(seed, epoch, count):
    """The order of the pictures in an epoch, as runtime/loader.c defines it."""
    order, state = list(range(count)), stream(seed, epoch, 1)
    for i in range(count - 1, 0, -1):
        limit = WORD - WORD % (i + 1)
        while True:
            state = state + GOLDEN & WORD
            if mix(state) < limit:
                break
        j = mix(state) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def is_flipped(seed, epoch, sample):
    return mix(stream(seed, epoch, 2) + (sample + 1) * GOLDEN & WORD) >> 63 == 1


def epoch_batches(pictures, masks, seed, epoch, batch):
    order = epoch_order(seed, epoch, len(pictures))
    for first in range(0, len(order), batch):
        chosen = order[first:first + batch]
        turn = [is_flipped(seed, epoch, i) for i in chosen]
        yield tuple(torch.stack([t[i].flip(-1) if f else t[i] for i, f in zip(chosen, turn)])
                    for t in (pictures, masks))


# ---- PyTorch -------------------------------------------------------------------------------------

def tensors_of(network):
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()
            if not name.endswith("num_batches_tracked")}


def network_of(model, options, weights=None, dtype=torch.float32):
    network = NETWORKS[model](**{k: v for k, v in options.items() if k != "size"})
    if weights:
        network.load_state_dict(weights, strict=False)
        assert set(weights) == set(tensors_of(network))
    return network.to(dtype)


def random_weights(model, options):
    """PyTorch's initial weights, but batch norms that do something: none is 1, 0, 0, 1."""
    torch.manual_seed(1)
    network = network_of(model, options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.no_grad():
        network.head.weight.mul_(30)    # else all probabilities are about the same
    return tensors_of(network)


class Training:
    """PyTorch's training; from a checkpoint of ours, or from weights alone."""

    def __init__(self, model, options, start, lr, dtype, step=0):
        weights = {name: t for name, t in start.items() if not name.startswith("optimizer.")}
        self.network = network_of(model, options, weights, dtype).train()
        self.adam = torch.optim.Adam(self.network.parameters(), lr, (0.9, 0.999), 1e-8)
        for name, parameter in self.network.named_parameters() if step else ():
            self.adam.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": start["optimizer.exp_avg." + name].to(dtype),
                "exp_avg_sq": start["optimizer.exp_avg_sq." + name].to(dtype)}

    def step(self, pictures, masks):
        dtype = next(self.network.parameters()).dtype
        logits = self.network(pictures.to(dtype))
        loss = F.binary_cross_entropy_with_logits(logits, masks.to(dtype))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()

    def checkpoint(self):
        """All tensors, as in a checkpoint of ours."""
        tensors = tensors_of(self.network)
        for name, parameter in self.network.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"optimizer.{moment}.{name}"] = self.adam.state[parameter][moment].clone()
        return tensors


def parts_of(checkpoint, before):
    """What is compared of a checkpoint, by what it is."""
    parts = {"first moments": {}, "second moments": {}, "weights moved": {}, "statistics": {}}
    for name, tensor in checkpoint.items():
        if name.startswith("optimizer.exp_avg_sq."):
            parts["second moments"][name] = tensor
        elif name.startswith("optimizer."):
            parts["first moments"][name] = tensor
        elif "running_" in name:
            parts["statistics"][name] = tensor
        else:
            parts["weights moved"][name] = tensor.double() - before[name].double()
    return parts


# ---- the checks ----------------------------------------------------------------------------------

def check_names(results, programs):
    try:
        from torchvision.models import resnet34
        theirs = {name: tuple(t.shape) for name, t in resnet34().state_dict().items()
                  if not name.startswith("fc.")}
        ours = {n: tuple(t.shape) for n, t in Resnet34Encoder().state_dict().items()}
        results.say(ours == theirs, "names torchvision", f"{len(theirs)} tensors of resnet34")
        count = sum(p.numel() for p in Resnet34Encoder().parameters())
        results.say(count == 21_284_672, "count encoder", f"{count:,}")
    except ImportError:
        print("skip names torchvision (not installed)")
    for model, wanted in COUNTS.items():
        network = NETWORKS[model]()
        count = sum(p.numel() for p in network.parameters())
        info = programs.run(programs.segrun, "info", programs.compile(model, {})).decode()
        listed = next(line for line in info.splitlines() if line.startswith("parameters"))
        good = f" {count:,} trained" in listed and count == wanted
        results.say(good, f"count {model}", f"{count:,}; ours: {listed.split(',  ')[0][12:]}")


def check_initial(results, programs, plan, model, options, data):
    """A learning rate that moves nothing leaves the initial values in the checkpoint."""
    checkpoint, _ = programs.train(plan, model, data, "-e", 1, "-b", 2, "--limit", 2, "--lr",
                                   "1e-37", "--seed", 5)
    torch.manual_seed(5)
    network = network_of(model, options)
    theirs = tensors_of(network)
    mine = {name: t for name, t in checkpoint.items() if not name.startswith("optimizer.")}
    same = {n: tuple(t.shape) for n, t in mine.items()} == {n: tuple(t.shape)
                                                           for n, t in theirs.items()}
    results.say(same, "names and shapes", f"{len(theirs)} tensors")
    constants = beyond = drift = 0.0
    worst = ""
    for prefix, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for part, value in (("weight", 1), ("bias", 0)):
                constants = max(constants, (mine[f"{prefix}.{part}"] - value).abs().max().item())
        elif hasattr(module, "weight"):
            fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
            bound = fan_in ** -0.5
            for part in ("weight", "bias"):
                t = mine.get(f"{prefix}.{part}")
                if t is None:
                    continue
                beyond = max(beyond, t.abs().max().item() / bound,
                             theirs[f"{prefix}.{part}"].abs().max().item() / bound)
                # a uniform variable's mean and mean square, in their standard errors
                u, n = t.double() / bound, t.numel()
                z = max(abs(u.mean().item()) * (3 * n) ** 0.5,
                        abs((u * u).mean().item() - 1 / 3) * (n * 45 / 4) ** 0.5)
                if z > drift:
                    drift, worst = z, f"{prefix}.{part}"
    results.number("initial batch norms", constants, 1e-30)
    results.say(0.9 < beyond <= 1.0000001, "initial bounds",
                f"largest |w| sqrt(fan in) {beyond:.7f}")
    results.number("initial moments, in sigmas", drift, 5, where=worst)


def check_predict(results, programs, plan, model, options, weights, path, pictures):
    truth = {}
    for dtype in (torch.float32, torch.float64):
        network = network_of(model, options, weights, dtype).eval()
        with torch.no_grad():
            truth[dtype] = torch.sigmoid(network(pictures.to(dtype)))
    exact = truth[torch.float64]
    own = (truth[torch.float32].double() - exact).abs().max().item()
    for program in ("predict", "evaluate"):
        ours = programs.outputs(plan, path, program, 2, pictures, exact.shape)
        error = (ours.double() - exact).abs().max().item()
        results.number(f"{program} probabilities", error, 1e-5, own,
                       f"from {exact.min():.3f} to {exact.max():.3f}")


def check_steps(results, programs, plan, model, options, weights, path, data, train):
    """Epochs of one batch: every step's loss is in the curves, and its state in a checkpoint."""
    seed, batch, (_, pictures, masks) = 7, 2, train
    limits = {"first moments": 1e-4, "second moments": 1e-4, "weights moved": 2e-3,
              "statistics": 1e-5}
    before, losses = weights, []
    errors = {name: ([], []) for name in limits}
    for step in range(STEPS):
        after, ours = programs.train(plan, model, data, "-m", path, "-e", step + 1, "-b", batch,
                                     "--limit", batch, "--lr", LR, "--seed", seed)
        (images, targets), = epoch_batches(pictures[:batch], masks[:batch], seed, step, batch)
        runs = [Training(model, options, before, LR, dtype, step)
                for dtype in (torch.float64, torch.float32)]
        exact, single = (run.step(images, targets) for run in runs)
        losses.append((abs(ours[step] - exact), abs(single - exact)))
        exact, single = (parts_of(run.checkpoint(), before) for run in runs)
        mine = parts_of(after, before)
        for name in limits:
            errors[name][0].append(relative_errors(mine[name], exact[name]))
            errors[name][1].append(relative_errors(single[name], exact[name]))
        before = after
    results.number("steps: loss", *max((error, 1e-5, own) for error, own in losses))
    for name, limit in limits.items():
        error, where, largest = best_and_largest(errors[name][0])
        own, _, own_largest = best_and_largest(errors[name][1])
        results.number(f"steps: {name}", error, limit, own,
                       f"largest {largest:.1e}, PyTorch {own_largest:.1e}; {where}")


def check_epochs(results, programs, plan, model, options, weights, path, data, train):
    seed, batch, count, (_, pictures, masks) = 11, 2, 5, train
    after, losses = programs.train(plan, model, data, "-m", path, "-e", 2, "-b", batch, "--limit",
                                   count, "--lr", SMALL_LR, "--seed", seed)
    training = Training(model, options, weights, SMALL_LR, torch.float64)
    for epoch, ours in enumerate(losses):
        total = 0
        for images, targets in epoch_batches(pictures, masks, seed, epoch, batch):
            total += training.step(images, targets) * len(images)
        results.number(f"epochs: loss of epoch {epoch + 1}", abs(ours - total / count), 1e-4,
                       where=f"{ours:.6f}")
    return {name: t for name, t in after.items() if not name.startswith("optimizer.")}


def check_scores(results, programs, plan, model, options, weights, path, data):
    batch, limit = 4, 6
    names, pictures, masks = read_split(data, "test", options["size"], limit)
    network = network_of(model, options, weights, torch.float64).eval()
    with torch.no_grad():
        logits = network(pictures.double())
    p, t = torch.sigmoid(logits)[:, 0], masks[:, 0].double()
    # A threshold that splits the pixels, and lies between two probabilities that are far apart
    values = p.flatten().sort().values
    middle = values[len(values) * 2 // 5:len(values) * 3 // 5]
    gap = (middle[1:] - middle[:-1]).argmax()
    threshold = ((middle[gap] + middle[gap + 1]) / 2).item()
    ours, rows = programs.evaluate(plan, path, data, batch, limit, threshold)
    a = (p >= threshold).double()
    both, sizes = (a * t).sum((1, 2)), a.sum((1, 2)) + t.sum((1, 2))
    dice = torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0)
    iou = torch.where(sizes > 0, both / (sizes - both).clamp(min=1), 1.0)
    soft = [(2 * (p[i:i + batch] * t[i:i + batch]).sum() + 1e-6)
            / (p[i:i + batch].sum() + t[i:i + batch].sum() + 1e-6) for i in range(0, limit, batch)]
    wanted = {"dice": dice.mean(), "iou": iou.mean(), "dice_all": 2 * both.sum() / sizes.sum(),
              "accuracy": (a == t).double().mean(), "soft_dice": sum(soft) / len(soft),
              "loss": F.binary_cross_entropy_with_logits(logits[:, 0], t)}
    for name, value in wanted.items():
        results.number(f"scores {name}", abs(ours[name] - value.item()), 1e-4,
                       where=f"{ours[name]:.6f} at {threshold:.4f}")
    worst = max(abs(float(rows[name]["dice"]) - dice[i].item()) for i, name in enumerate(names))
    results.number("scores of each picture", worst, 1e-4)


def check_case(results, programs, model, options, data):
    print(f"\n{model} {' '.join(f'{k}={v}' for k, v in options.items())}")
    plan = programs.compile(model, options)
    weights = random_weights(model, options)
    path = programs.work / "weights.safetensors"
    save_file(weights, path)
    train = read_split(data, "train", options["size"], 5)
    check_initial(results, programs, plan, model, options, data)
    check_steps(results, programs, plan, model, options, weights, path, data, train)
    trained = check_epochs(results, programs, plan, model, options, weights, path, data, train)
    save_file(trained, path)
    check_predict(results, programs, plan, model, options, trained, path, train[1])
    check_scores(results, programs, plan, model, options, trained, path, data)


def main():
    parser = argparse.ArgumentParser(description="Compares segrun with PyTorch, number by number.")
    parser.add_argument("--build", type=Path, default=ROOT / "build",
                        help="folder of segc and segrun")
    parser.add_argument("--data", help="a data set in the pets' layout; default: one is drawn")
    parser.add_argument("--only", default="", help="models whose name has this in it")
    arguments = parser.parse_args()
    results = Results()
    with tempfile.TemporaryDirectory() as work:
        programs, data = Programs(arguments.build, Path(work)), arguments.data
        if not data:
            data = Path(work) / "data"
            programs.run(programs.segrun, "data", "synth", data, "--count", 40)
        check_names(results, programs)
        for model, options in CASES:
            if arguments.only in model:
                check_case(results, programs, model, options, data)
    print(f"\n{results.passed} passed, {results.failed} failed")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
