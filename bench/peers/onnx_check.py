#!/usr/bin/env python3
"""ONNX files to and from segc, checked by onnx.checker and ONNX Runtime.

  export   models/*.seg with trained weights: the checker's full check, names, one open dimension;
           probabilities of real pictures in ONNX Runtime against segrun's, in batches of 1 and 3
  back     what was exported is imported again: segrun's probabilities against the first ones
  import   networks written in PyTorch and exported by torch.onnx, by both of its exporters, and
           segmentation_models.pytorch's U-Net: segrun's results against PyTorch's in float64

The limit is 1e-5 of a probability. A deep network with random weights can enlarge rounding beyond
that: an import may then be off by four times what PyTorch in float32 is.
"""
import argparse
import contextlib
import copy
import io
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn
from safetensors.torch import load_file, save_file

from check import ROOT, Programs, Results, network_of, random_weights, read_split

LIMIT = 1e-5
EXPORTS = [
    ("unet", {"width": 16, "size": 128}),
    ("unet", {"width": 8, "size": 50}),
    ("resnet34_unet", {"size": 128}),
    ("resnet34_unet", {"size": 70, "pool_padding": 0}),
    ("resnet34_unet_paper", {"size": 64}),
]


def defines_of(options):
    return [word for key, value in options.items() for word in ("-D", f"{key}={value}")]


def run_onnx(path, pictures):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pictures.numpy()})[0]


def largest(a, b):
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


# ---- export --------------------------------------------------------------------------------------

def check_file(results, path, parameters):
    """The checker's opinion, and what a reader of the file sees."""
    onnx.checker.check_model(str(path), full_check=True)
    file = onnx.load(path)
    names = {tensor.name for tensor in file.graph.initializer}
    wanted = {name for name in parameters if not name.endswith("num_batches_tracked")}
    dims = [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim]
    results.say(wanted <= names, "parameters keep their names", f"{len(wanted)} of {len(names)}")
    results.say(dims[0] == "N" and min(dims[1:]) > 0, "the batch is open", str(dims))
    results.say(file.producer_name == "segc" and file.opset_import[0].version >= 17, "producer",
                f"{file.producer_name} {file.producer_version}, "
                f"opset {file.opset_import[0].version}")
    kinds = {node.op_type for node in file.graph.node}
    results.say("BatchNormalization" in kinds, "batch norms are kept", " ".join(sorted(kinds)))


def check_export(results, programs, model, options, data, weights):
    print(f"\n{model} {' '.join(f'{k}={v}' for k, v in options.items())}")
    plan, path = programs.compile(model, options), programs.work / "exported.onnx"
    if weights is None:
        weights = programs.work / "weights.safetensors"
        save_file(random_weights(model, options), weights)
    programs.run(programs.segc, ROOT / "models" / f"{model}.seg", *defines_of(options), "--export",
                 path, "-m", weights)
    check_file(results, path, [name for name in load_file(weights)
                               if not name.startswith("optimizer.")])
    size, (_, pictures, _) = options["size"], read_split(data, "test", options["size"], 10)
    ours = programs.outputs(plan, weights, "predict", 3, pictures, (-1, 1, size, size))
    for batch in (1, 3, 10):
        theirs = np.concatenate([run_onnx(path, pictures[i:i + batch])
                                 for i in range(0, len(pictures), batch)])
        results.number(f"ONNX Runtime, batch {batch}", largest(ours, theirs), LIMIT,
                       where=f"{ours.min():.3f} to {ours.max():.3f}")
    return path, ours, pictures


# ---- import --------------------------------------------------------------------------------------

def import_file(programs, path, *options):
    """A plan and its weights."""
    model, weights, plan = (programs.work / f"imported.{end}"
                            for end in ("seg", "safetensors", "plan"))
    programs.run(programs.segc, "import", path, "-o", model, *options)
    programs.run(programs.segc, "fmt", "--check", model)
    programs.run(programs.segc, model, "--target", "host", "-o", plan)
    return plan, weights


def check_back(results, programs, path, ours, pictures):
    plan, weights = import_file(programs, path)
    again = programs.outputs(plan, weights, "predict", 3, pictures, ours.shape)
    results.number("imported again", largest(ours, again), LIMIT)


class Gate(nn.Module):
    """Squeeze and excitation by linear layers, on both poolings with the same weights."""

    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, 4), nn.ReLU(),
                                 nn.Linear(4, channels))

    def forward(self, x):
        gate = torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(x.amax((2, 3), True)))
        return x * gate[:, :, None, None]


class Everything(nn.Module):
    """What segc import can read, at least once."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.stem = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
        self.norm = nn.BatchNorm2d(16, eps=1e-3)
        self.gate = Gate(16)
        self.valid = nn.Conv2d(16, 16, 3)
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.projection = nn.Linear(8, 8, bias=False)
        self.head = nn.Conv2d(37, 3, 1)

    def forward(self, x):
        x = (x - self.mean) / self.std
        y = F.leaky_relu(self.stem(x), 0.2)
        y = self.norm(y + F.hardswish(self.depthwise(y)))
        y = self.gate(F.silu(y) + F.gelu(y) - torch.tanh(y))
        small = F.avg_pool2d(F.max_pool2d(y, 3, 2, 1), 2)
        wide = F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)
        inner = self.valid(wide) + wide[:, :, 1:-1, 1:-1]
        y = F.relu6(torch.clamp(y, -0.5) + F.pad(inner, (1, 1, 1, 1)))
        z = self.up(y)
        means = self.projection(z.mean((2, 3)))[:, :, None, None]
        near = F.interpolate(y, scale_factor=2, mode="nearest")
        x = torch.cat([z * means, near, z.mean(1, True), z.amax(1, True), 1 - x, -z], 1)
        return torch.softmax(self.head(x), 1)


def fill(network):
    """Batch norms that do something."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def settle(network, image):
    """Running statistics of these pictures, so that values stay of the size that training gives."""
    with torch.no_grad():
        for _ in range(30):
            network.train()(image)
    return network.eval()


def export_torch(network, example, path, new):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if new:
            torch.onnx.export(network, (example,), path, input_names=["image"],
                              output_names=["logits"], dynamo=True,
                              dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        else:
            torch.onnx.export(network, (example,), path, input_names=["image"],
                              output_names=["logits"], dynamo=False, opset_version=17,
                              dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}})


def check_import(results, programs, name, network, data, size, as_bytes=False, as_is=False,
                 options=()):
    """The network's own input: bytes, or pictures divided by 255."""
    print(f"\n{name} @{size}")
    _, pictures, _ = read_split(data, "test", size, 4)
    image = (pictures if as_bytes else pictures / 255).contiguous()
    settle(network, image)
    exact = pictures.double() if as_bytes else pictures.double() / 255
    with torch.no_grad():
        truth, single = (result if as_is else torch.sigmoid(result)
                         for result in (copy.deepcopy(network).double()(exact), network(image)))
    own = largest(single, truth)
    for new in (False, True):
        path = programs.work / "torch.onnx"
        export_torch(network, image[:2].contiguous(), path, new)
        kinds = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
        plan, weights = import_file(programs, path, *options, *(["--as-is"] if as_is else []))
        ours = programs.outputs(plan, weights, "predict", 3, pictures, truth.shape)
        results.number("torch.export" if new else "TorchScript", largest(ours, truth), LIMIT, own,
                       where=f"{truth.min():.3f} to {truth.max():.3f}; {len(kinds)} operators")


def check_imports(results, programs, data, only):
    cases = [("everything", lambda: fill(Everything()), 64, {"as_is": True}),
             ("unet of networks.py", lambda: fill(network_of("unet", {"width": 8, "size": 50})), 50,
              {"as_bytes": True}),
             ("resnet34_unet of networks.py",
              lambda: fill(network_of("resnet34_unet", {"size": 70})), 70, {"as_bytes": True})]
    for encoder in ("resnet34", "mobilenet_v2"):
        cases.append((f"smp.Unet {encoder}", lambda encoder=encoder: fill(
            smp.Unet(encoder, encoder_weights=None)), 96, {}))
    for name, make, size, options in cases:
        if only in name:
            check_import(results, programs, name, make(), data, size, **options)


def main():
    parser = argparse.ArgumentParser(description="ONNX files to and from segc.")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--data", help="a data set in the pets' layout; default: one is drawn")
    parser.add_argument("--weights", help="trained weights of the first network that is exported: "
                                          "unet.seg with width 16 and size 128")
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    arguments = parser.parse_args()
    results = Results()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        programs, data = Programs(arguments.build, Path(work)), arguments.data
        if not data:
            data = Path(work) / "data"
            programs.run(programs.segrun, "data", "synth", data, "--count", 40)
        for model, options in EXPORTS:
            if arguments.only in model:
                weights = arguments.weights if (model, options) == EXPORTS[0] else None
                check_back(results, programs,
                           *check_export(results, programs, model, options, data, weights))
        check_imports(results, programs, data, arguments.only)
    print(f"\n{results.passed} passed, {results.failed} failed")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
