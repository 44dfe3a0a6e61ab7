"""Checks runtime/segrun.py: probabilities by libsegrun in Python against those of outputs.c.

    make all library && python3 bench/peers/library.py        (needs numpy)
"""
import os
import subprocess
import sys
import tempfile

import numpy

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("SEGRUN_LIBRARY", os.path.join(root, "build", "libsegrun.so.0"))
sys.path.insert(0, os.path.join(root, "runtime"))
import segrun  # noqa: E402


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, **more).stdout


def main():
    failed = 0

    def check(what, fine):
        nonlocal failed
        failed += not fine
        print("ok  " if fine else "FAIL", what)

    build = os.path.join(root, "build")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run(f"{build}/segc", f"{root}/models/unet.seg", "-D", "width=8", "-D", "size=64", "-o", "a.plan")
        run(f"{build}/segrun", "data", "synth", "pets", "--count", "8")
        run(f"{build}/segrun", "train", "a.plan", "--data", "pets", "-e", "1", "-p", ".", "-q")
        weights = "unet.last.safetensors"
        images = numpy.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=numpy.uint8)
        with segrun.Network("a.plan", weights, max_batch=3) as network:
            check(f"inputs {network.inputs} outputs {network.outputs}",
                  network.inputs[0].shape == (3, 64, 64) and network.outputs[0].name == "probability")
            all_three = network(images)
            check("a batch is its pictures", numpy.array_equal(
                all_three, numpy.concatenate([network(images[i:i + 1]) for i in range(3)])))
            check("probabilities", all_three.dtype == numpy.float32 and 0 < all_three.min()
                  and all_three.max() < 1 and all_three.std() > 0)
            for wrong in (images[:, :2], images.astype(numpy.float32), images[0]):
                try:
                    network(wrong)
                    check(f"{wrong.dtype} {wrong.shape} is refused", False)
                except segrun.Error as error:
                    check(f"refused: {error}", True)
            try:
                network(numpy.concatenate([images, images]))
                check("a batch too large is refused", False)
            except segrun.Error as error:
                check(f"refused: {error}".replace("\n", "; "), "max_batch" in str(error))
        program = os.path.join(folder, "outputs")
        run("cc", "-O1", f"-I{root}/runtime", f"{root}/bench/peers/outputs.c", f"{build}/runtime.a",
            "-o", program, *run("pkg-config", "--libs", "libpng", "libjpeg", "cairo", "jansson",
                                "libxxhash", text=True).split(), "-lgif", "-ldl", "-lpthread", "-lm")
        raw = run(program, "a.plan", weights, "predict", "3", input=images.tobytes())
        check("the same bits as in C",
              numpy.array_equal(numpy.frombuffer(raw, numpy.float32).reshape(all_three.shape), all_three))
        try:
            segrun.Network("a.plan", "a.plan")
            check("a plan is no file of weights", False)
        except segrun.Error as error:
            check("refused: a plan as weights", "a.plan" in str(error))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
