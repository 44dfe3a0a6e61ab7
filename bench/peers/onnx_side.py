"""ONNX Runtime and OpenVINO on an export of networks.py, batch fixed; they fold as they like."""
import warnings
from pathlib import Path

THREADS = 2


def set_up(threads):
    global THREADS
    THREADS = threads


def export(network, weights, batch, path):
    """The network with its weights as an ONNX file; from PyTorch, in a process of its own."""
    import torch
    from networks import NETWORKS
    from torch_side import Probabilities, network_with
    assert network in NETWORKS
    module = Probabilities(network_with(network, weights))
    image = torch.zeros(batch, 3, 256, 256, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=17,
                          input_names=["image"], output_names=["probability"])


class OnnxRuntimeSide:
    def __init__(self, path, images):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(str(path), options,
                                                    providers=["CPUExecutionProvider"])
        self.images = images

    def run(self):
        return self.session.run(None, {"image": self.images})[0]

    predict = run


class OpenVinoSide:
    def __init__(self, path, images, precision):
        import openvino
        kind = openvino.Type.bf16 if precision == "bf16" else openvino.Type.f32
        core = openvino.Core()
        model = core.compile_model(str(Path(path)), "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS,
            "INFERENCE_PRECISION_HINT": kind})
        self.request, self.images = model.create_infer_request(), images

    def run(self):
        return self.request.infer({"image": self.images}, share_inputs=True)["probability"]

    predict = run
