#!/usr/bin/env python3
"""ONNX files to and from segc, checked by onnx.checker and ONNX Runtime.

  export   models/*.seg with trained weights: the checker's full check, names, one open dimension;
           probabilities of real pictures in ONNX Runtime against segrun's, in batches of 1 and 3
  back     what was exported is imported again: segrun's probabilities against the first ones
  import   networks written in PyTorch and exported by torch.onnx, by both of its exporters, and
           segmentation_models.pytorch's U-Net: segrun's results against PyTorch's
  refuse   files that hold what the language lacks

The limit is 1e-5 of a probability, and of a logit what makes that in a probability: 4e-5.
"""
import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
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
    size, (_, pictures, _) = options["size"], read_split(data, "test", options["size"], 6)
    ours = programs.outputs(plan, weights, "predict", 3, pictures, (-1, 1, size, size))
    for batch in (1, 3):
        theirs = np.concatenate([run_onnx(path, pictures[i:i + batch])
                                 for i in range(0, len(pictures), batch)])
        results.number(f"ONNX Runtime, batch {batch}", largest(ours, theirs), LIMIT,
                       where=f"{ours.min():.3f} to {ours.max():.3f}")
    return path, ours, pictures


def main():
    parser = argparse.ArgumentParser(description="ONNX files to and from segc.")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--data", help="a data set in the pets' layout; default: one is drawn")
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
                check_export(results, programs, model, options, data, None)
    print(f"\n{results.passed} passed, {results.failed} failed")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
