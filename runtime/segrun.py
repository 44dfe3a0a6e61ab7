"""A trained network in Python: numpy arrays in and out, through libsegrun by ctypes.

    import numpy, segrun
    with segrun.Network("unet.plan", "unet.best.safetensors", max_batch=4) as network:
        probability = network(image)      # uint8 [N, 3, 256, 256] -> float32 [N, 1, 256, 256]

Needs numpy and libsegrun.so (`make install`, or SEGRUN_LIBRARY=build/libsegrun.so.0).
"""
import ctypes
import os

import numpy

_MESSAGE = 1600
_DTYPES = (numpy.float32, numpy.uint8)     # SEG_FLOAT, SEG_BYTE


class _Options(ctypes.Structure):
    _fields_ = [("device", ctypes.c_char_p), ("precision", ctypes.c_char_p),
                ("threads", ctypes.c_int), ("max_batch", ctypes.c_int), ("trust", ctypes.c_bool)]


class _Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("channels", ctypes.c_int),
                ("height", ctypes.c_int), ("width", ctypes.c_int)]


def _load():
    library = ctypes.CDLL(os.environ.get("SEGRUN_LIBRARY", "libsegrun.so.0"))
    network, count, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    pointers = ctypes.POINTER(ctypes.c_void_p)
    for name, result, arguments in (
            ("seg_open", network, [text, text, ctypes.POINTER(_Options), ctypes.c_char_p]),
            ("seg_close", None, [network]),
            ("seg_inputs", count, [network]),
            ("seg_outputs", count, [network]),
            ("seg_input", _Tensor, [network, count]),
            ("seg_output", _Tensor, [network, count]),
            ("seg_device", text, [network]),
            ("seg_message", text, [network]),
            ("seg_run", ctypes.c_bool, [network, count, pointers, pointers])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Error(Exception):
    """What libsegrun said, with its hint."""


class Tensor:
    """Name, dtype and shape (channels, height, width) of an input or output."""

    def __init__(self, tensor):
        self.name = tensor.name.decode()
        self.dtype = numpy.dtype(_DTYPES[tensor.type])
        self.shape = (tensor.channels, tensor.height, tensor.width)

    def __repr__(self):
        return f"Tensor({self.name!r}, {self.dtype}, {self.shape})"


class Network:
    """A plan with its weights, ready to predict up to max_batch pictures at once."""

    def __init__(self, plan, weights, device="auto", precision=None, threads=0, max_batch=1,
                 trust=False):
        self._library = _load()
        self._network = None
        message = ctypes.create_string_buffer(_MESSAGE)
        options = _Options(device.encode(), precision.encode() if precision else None, threads,
                           max_batch, trust)
        self._network = self._library.seg_open(os.fsencode(plan), os.fsencode(weights),
                                               ctypes.byref(options), message)
        if not self._network:
            raise Error(message.value.decode(errors="replace"))
        library, network = self._library, self._network
        self.inputs = [Tensor(library.seg_input(network, i))
                       for i in range(library.seg_inputs(network))]
        self.outputs = [Tensor(library.seg_output(network, i))
                        for i in range(library.seg_outputs(network))]
        self.device = library.seg_device(network).decode()

    def __call__(self, *arrays):
        """The outputs for one array an input, each [N, C, H, W]; a single output is not in a tuple."""
        if not self._network:
            raise Error("the network is closed")
        if len(arrays) != len(self.inputs):
            raise Error(f"expected {len(self.inputs)} arrays, got {len(arrays)}")
        batch = arrays[0].shape[0] if arrays[0].ndim == 4 else 0
        taken = []
        for array, tensor in zip(arrays, self.inputs):
            if array.shape != (batch, *tensor.shape) or array.dtype != tensor.dtype:
                raise Error(f"{tensor.name}: expected {tensor.dtype} [N, {tensor.shape[0]}, "
                            f"{tensor.shape[1]}, {tensor.shape[2]}], got {array.dtype} "
                            f"{list(array.shape)}")
            taken.append(numpy.ascontiguousarray(array))
        results = [numpy.empty((batch, *tensor.shape), tensor.dtype) for tensor in self.outputs]
        if not self._library.seg_run(self._network, batch, _pointers(taken), _pointers(results)):
            raise Error(self._library.seg_message(self._network).decode(errors="replace"))
        return results[0] if len(results) == 1 else tuple(results)

    def close(self):
        """Frees everything; a closed network cannot be used."""
        network, self._network = self._network, None
        if network:
            self._library.seg_close(network)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    __del__ = close


def _pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
