"""JAX on the networks of plain.py: one jitted function a step, channels last, arrays donated.

Weights are kept as [height, width, in, out], so that no step transposes them; matrices as
[in, out]. A transposed convolution of kernel 2 and stride 2 is a matrix product.
"""
import os

import numpy as np

from plain import PLAIN, split_weights

EPS, MOMENTUM, LR, BETA1, BETA2, ADAM_EPS = 1e-5, 0.1, 1e-5, 0.9, 0.999, 1e-8


def set_up(threads):
    # XLA has no option for its number of threads: it takes the processors it may run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def to_jax(name, value):
    if value.ndim == 4 and "conv_transpose" in name:
        return np.ascontiguousarray(value.transpose(2, 3, 0, 1))     # IOHW -> HWIO
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))     # OIHW -> HWIO
    return np.ascontiguousarray(value.T) if value.ndim == 2 else value


def from_jax(name, value):
    value = np.asarray(value)
    if value.ndim == 4:
        return value.transpose(2, 3, 0, 1) if "conv_transpose" in name \
            else value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


class Net:
    def __init__(self, parameters, buffers, training):
        self.parameters, self.buffers, self.training = parameters, buffers, training
        self.updated = {}

    def image(self, x):
        return x.astype("float32") / 255

    def conv(self, x, name, stride=1, padding=0):
        from jax import lax
        y = lax.conv_general_dilated(x, self.parameters[name + ".weight"], (stride, stride),
                                     [(padding, padding)] * 2,
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
        bias = self.parameters.get(name + ".bias")
        return y if bias is None else y + bias

    def conv_transpose(self, x, name):
        import jax.numpy as jnp
        n, height, width, _ = x.shape
        y = jnp.einsum("nhwi,klio->nhkwlo", x, self.parameters[name + ".weight"])
        return y.reshape(n, 2 * height, 2 * width, -1) + self.parameters[name + ".bias"]

    def batch_norm(self, x, name):
        import jax.numpy as jnp
        from jax import lax
        mean, var = self.buffers[name + ".running_mean"], self.buffers[name + ".running_var"]
        if self.training:
            count = x.size // x.shape[-1]
            old = mean, var
            mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
            now = lax.stop_gradient((mean, var * (count / (count - 1))))
            for part, before, value in zip(("mean", "var"), old, now):
                self.updated[f"{name}.running_{part}"] = before + MOMENTUM * (value - before)
        scale = self.parameters[name + ".weight"] * lax.rsqrt(var + EPS)
        return x * scale + (self.parameters[name + ".bias"] - mean * scale)

    def max_pool(self, x, kernel, stride, padding):
        from jax import lax
        around = (0, 0), (padding, padding), (padding, padding), (0, 0)
        return lax.reduce_window(x, -np.inf, lax.max, (1, kernel, kernel, 1),
                                 (1, stride, stride, 1), around)

    def linear(self, x, name):
        return x @ self.parameters[name + ".weight"] + self.parameters[name + ".bias"]

    def relu(self, x):
        import jax
        return jax.nn.relu(x)

    def sigmoid(self, x):
        import jax
        return jax.nn.sigmoid(x)

    def concat(self, a, b):
        import jax.numpy as jnp
        return jnp.concatenate([a, b], -1)

    def mean_pixels(self, x):
        return x.mean((1, 2))

    def max_pixels(self, x):
        return x.max((1, 2))

    def mean_channels(self, x):
        return x.mean(-1, keepdims=True)

    def max_channels(self, x):
        return x.max(-1, keepdims=True)

    def scale_channels(self, x, scale):
        return x * scale[:, None, None, :]


class JaxSide:
    """run() is one run of the program; step() and predict() are for agree.py."""

    def __init__(self, network, program, weights, images, masks):
        import jax
        self.jax, self.forward = jax, PLAIN[network]
        parameters, buffers = split_weights(weights)
        put = jax.device_put
        self.parameters = {name: put(to_jax(name, v)) for name, v in parameters.items()}
        self.buffers = {name: put(v) for name, v in buffers.items()}
        self.images = put(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        self.masks = put(np.ascontiguousarray(masks.transpose(0, 2, 3, 1).astype(np.float32)))
        self.gradients = jax.value_and_grad(self.loss, has_aux=True)
        self.predicted = jax.jit(self.probabilities)
        self.trained = jax.jit(self.train, donate_argnums=(0, 1, 2))
        if program == "train":
            zeros = {name: put(np.zeros_like(v)) for name, v in self.parameters.items()}
            again = {name: put(np.zeros_like(v)) for name, v in self.parameters.items()}
            self.moments, self.steps = (zeros, again), 0
        self.run = self.run_train if program == "train" else self.run_predict

    def probabilities(self, parameters, buffers, images):
        return self.jax.nn.sigmoid(self.forward(Net(parameters, buffers, False), images))

    def loss(self, parameters, buffers, images, masks):
        import jax.numpy as jnp
        net = Net(parameters, buffers, True)
        x = self.forward(net, images)
        # log(1 + exp(-|x|)) + max(x, 0) - x t, as PyTorch computes it from logits
        loss = jnp.mean(jnp.maximum(x, 0) - x * masks + jnp.log1p(jnp.exp(-jnp.abs(x))))
        return loss, net.updated

    def train(self, parameters, moments, buffers, step, images, masks):
        (loss, buffers), gradients = self.gradients(parameters, buffers, images, masks)
        first, second = dict(moments[0]), dict(moments[1])
        new, rate, root = {}, LR / (1 - BETA1 ** step), (1 - BETA2 ** step) ** 0.5
        for name, g in gradients.items():
            first[name] = BETA1 * first[name] + (1 - BETA1) * g
            second[name] = BETA2 * second[name] + (1 - BETA2) * g * g
            divisor = second[name] ** 0.5 / root + ADAM_EPS
            new[name] = parameters[name] - rate * first[name] / divisor
        return new, (first, second), buffers, loss

    def run_train(self):
        self.steps += 1
        self.parameters, self.moments, self.buffers, loss = self.trained(
            self.parameters, self.moments, self.buffers, np.float32(self.steps), self.images,
            self.masks)
        self.last = float(loss)

    def run_predict(self):
        return self.predicted(self.parameters, self.buffers, self.images).block_until_ready()

    # ---- agree.py ----

    def predict(self):
        return np.asarray(self.run_predict()).transpose(0, 3, 1, 2)

    def step(self):
        """Loss, gradients and weights of the first step."""
        before = {name: np.asarray(value).copy() for name, value in self.parameters.items()}
        self.run_train()
        gradients = {name: from_jax(name, value) / np.float32(1 - BETA1)
                     for name, value in self.moments[0].items()}
        moved = {name: from_jax(name, np.asarray(value) - before[name])
                 for name, value in self.parameters.items()}
        return self.last, gradients, moved
