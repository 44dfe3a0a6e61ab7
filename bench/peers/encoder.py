#!/usr/bin/env python3
"""Weights that come from PyTorch and go there: ResNet-34 of torchvision, and our checkpoints.

  features     torchvision's resnet34 with random weights, saved as safetensors, gives the features
               of the stem and of the four layers of models/resnet34.seg, to 1e-5 of the largest
  init         segrun train --init takes this file, and all parameters of the encoder arrive
  checkpoint   segrun trains ResNet34-U-Net; the checkpoint loads, strictly, into the network of
               networks.py, which predicts the same to 1e-5
  back         the checkpoint's encoder loads into torchvision's resnet34 but for fc.*

Like check.py, neither the build nor the tests need it.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import resnet34

from check import Programs, ROOT, Results, network_of, random_weights, read_split, tensors_of

MODEL = """
use "resnet34.seg"
param size = 96
model features {{
    input image : u8[3, size, size]
    features = resnet34(image / 255, name = "")
{outputs}
}}
"""
LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")
SIZE = 96
LIMIT = 1e-5


def torchvision_encoder():
    """Random weights, and batch norms that do something."""
    torch.manual_seed(3)
    network = resnet34(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def features_of(network, pictures):
    x = network.relu(network.bn1(network.conv1(pictures / 255)))
    features = [x]
    x = network.maxpool(x)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        features.append(x)
    return features


def encoder_weights(network):
    return {name: tensor.contiguous() for name, tensor in tensors_of(network).items()
            if not name.startswith("fc.")}


def check_features(results, programs, network):
    model, plan = programs.work / "features.seg", programs.work / "features.plan"
    model.write_text(MODEL.format(outputs="\n".join(
        f"    output {name} = features[{i}]" for i, name in enumerate(LEVELS))))
    programs.run(programs.segc, model, "-I", ROOT / "models", "--target", "host", "-D",
                 f"size={SIZE}", "-o", plan)
    weights = programs.work / "encoder.safetensors"
    save_file(encoder_weights(network), weights)
    pictures = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    with torch.no_grad():
        single = features_of(network, pictures.float())
        exact = features_of(network.double(), pictures.double())
    network.float()
    for name, right, theirs in zip(LEVELS, exact, single):
        ours = programs.outputs(plan, weights, "predict", 2, pictures, right.shape, name)
        largest = right.abs().max().item()
        own = (theirs.double() - right).abs().max().item() / largest
        error = (ours.double() - right).abs().max().item() / largest
        results.say(error <= LIMIT, f"features {name}",
                    f"{error:.2e} of the largest (limit {LIMIT:.0e}, PyTorch {own:.2e})")


def check_init(results, programs, network, data):
    """A learning rate that moves nothing; running statistics move all the same."""
    plan = programs.compile("resnet34_unet", {"size": SIZE})
    trained, _ = programs.train(plan, "resnet34_unet", data, "--init",
                                programs.work / "encoder.safetensors", "-e", 1, "-b", 2,
                                "--limit", 2, "--lr", "1e-37")
    parameters = [name for name in encoder_weights(network) if "running_" not in name]
    given = network.state_dict()
    same = sum((trained[name] - given[name]).abs().max() < 1e-30 for name in parameters)
    results.say(same == len(parameters), "init", f"{same} of {len(parameters)} parameters")


def check_checkpoint(results, programs, network, data):
    options = {"size": SIZE}
    plan = programs.compile("resnet34_unet", options)
    weights = random_weights("resnet34_unet", options) | encoder_weights(network)
    start = programs.work / "start.safetensors"
    save_file(weights, start)
    trained, _ = programs.train(plan, "resnet34_unet", data, "-m", start, "-e", 1, "-b", 2,
                                "--limit", 4, "--lr", "1e-4")
    kept = {name: t for name, t in trained.items() if not name.startswith("optimizer.")}
    moved = max((kept[name] - weights[name]).abs().max().item() for name in kept
                if "running_" not in name)
    results.say(set(kept) == set(weights) and 1e-5 < moved < 1, "checkpoint names",
                f"{len(kept)} tensors, moved by up to {moved:.1e}")
    path = programs.work / "trained.safetensors"
    save_file(kept, path)
    _, pictures, _ = read_split(data, "train", SIZE, 4)
    mine = network_of("resnet34_unet", options, kept, torch.float64).eval()
    with torch.no_grad():
        exact = torch.sigmoid(mine(pictures.double()))
    ours = programs.outputs(plan, path, "predict", 4, pictures, exact.shape)
    error = (ours.double() - exact).abs().max().item()
    results.number("checkpoint predicts", error, LIMIT,
                   where=f"probabilities from {exact.min():.3f} to {exact.max():.3f}")
    encoder = {name: t for name, t in kept.items() if name in encoder_weights(network)}
    missing, unexpected = resnet34(weights=None).load_state_dict(encoder, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    results.say(not unexpected and sorted(missing) == ["fc.bias", "fc.weight"],
                "back to torchvision", f"{len(encoder)} tensors, missing {', '.join(missing)}")


def main():
    parser = argparse.ArgumentParser(description="Exchanges weights with torchvision.")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--data", help="a data set in the pets' layout; default: one is drawn")
    arguments = parser.parse_args()
    results, network = Results(), torchvision_encoder()
    with tempfile.TemporaryDirectory() as work:
        programs, data = Programs(arguments.build, Path(work)), arguments.data
        if not data:
            data = Path(work) / "data"
            programs.run(programs.segrun, "data", "synth", data, "--count", 10)
        check_features(results, programs, network)
        check_init(results, programs, network, data)
        check_checkpoint(results, programs, network, data)
    print(f"\n{results.passed} passed, {results.failed} failed")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
