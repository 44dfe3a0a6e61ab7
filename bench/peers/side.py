#!/usr/bin/env python3
"""side.py WHO NETWORK PROGRAM BATCH PRECISION WEIGHTS THREADS: one peer, kept alive.

Warms up, then waits for its next turn: reads commands from standard input and answers each with a
line of JSON on standard output, as ours.c does ("run N", "quit"). turns.py starts it.
"""
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

SIZE = 256


def inputs(batch, seed=0):
    """Random bytes and a mask of zeros and ones."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 256, (batch, 3, SIZE, SIZE), np.uint8),
            random.integers(0, 2, (batch, 1, SIZE, SIZE), np.uint8))


def make(who, network, program, batch, precision, weights, threads, data=None):
    """The peer; `who` may carry options behind plus signs."""
    base, *options = who.split("+")
    if precision != "fp32" and base in ("jax", "tinygrad", "onnxruntime"):
        raise ValueError(f"{base} is measured in fp32 only")
    images, masks = data or inputs(batch)
    if base.startswith("pytorch"):
        import torch_side
        options += ["compiled"] if base == "pytorch-compiled" else []
        torch_side.set_up(threads, options)
        return torch_side.TorchSide(network, program, load(weights), images, masks, precision,
                                    options)
    if base == "jax":
        import jax_side
        jax_side.set_up(threads)
        return jax_side.JaxSide(network, program, load(weights), images, masks)
    if base == "tinygrad":
        import tinygrad_side
        tinygrad_side.set_up(threads)
        return tinygrad_side.TinygradSide(network, program, load(weights), images, masks)
    if program != "predict":
        raise ValueError(f"{base} is measured in predict only")
    import onnx_side
    onnx_side.set_up(threads)
    path = Path(weights).with_name(f"{network}-{batch}.onnx")
    if base == "onnxruntime":
        return onnx_side.OnnxRuntimeSide(path, images)
    return onnx_side.OpenVinoSide(path, images, precision)


def load(weights):
    from safetensors.numpy import load_file
    return load_file(weights)


def timed(side):
    begun = time.perf_counter()
    side.run()
    return time.perf_counter() - begun


def main():
    # What the libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    who, network, program, batch, precision, weights, threads = sys.argv[1:]
    try:
        side = make(who, network, program, int(batch), precision, weights, int(threads))
        first = timed(side)
        warm = [first]
        while len(warm) < (2 if int(batch) < 8 else 1) or sum(warm) < 0.5:
            warm.append(timed(side))
    except Exception as error:      # of any kind: the other peers still count
        answer(error=f"{type(error).__name__}: {error}"[:300])
        raise
    answer(ready=who, first_seconds=round(first, 3))
    for line in sys.stdin:
        command = line.split()
        if command[0] == "quit":
            break
        answer(seconds=[timed(side) for _ in range(int(command[1]))])
    answer(memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    answers.close()
    os._exit(0)     # some libraries take seconds to take themselves down


if __name__ == "__main__":
    main()
