"""tinygrad on the networks of plain.py: TinyJit on the CPU, channels first, its own Adam."""
import os

import numpy as np

from plain import PLAIN, split_weights

EPS, MOMENTUM, LR = 1e-5, 0.1, 1e-5


def set_up(threads):
    os.environ.setdefault("DEV", "CPU")
    os.environ["CPU_COUNT"] = os.environ["NUM_CPU_THREADS"] = str(threads)


class Net:
    def __init__(self, parameters, buffers, training):
        self.parameters, self.buffers, self.training = parameters, buffers, training

    def image(self, x):
        return x.float() / 255

    def conv(self, x, name, stride=1, padding=0):
        return x.conv2d(self.parameters[name + ".weight"], self.parameters.get(name + ".bias"),
                        stride=stride, padding=padding)

    def conv_transpose(self, x, name):
        return x.conv_transpose2d(self.parameters[name + ".weight"],
                                  self.parameters[name + ".bias"], stride=2)

    def batch_norm(self, x, name):
        mean, var = self.buffers[name + ".running_mean"], self.buffers[name + ".running_var"]
        if self.training:
            old = mean, var
            count = x.numel() // x.shape[1]
            mean = x.mean((0, 2, 3))
            var = ((x - mean.reshape(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
            old[0].assign(old[0] + MOMENTUM * (mean.detach() - old[0]))
            old[1].assign(old[1] + MOMENTUM * (var.detach() * (count / (count - 1)) - old[1]))
        return x.batchnorm(self.parameters[name + ".weight"], self.parameters[name + ".bias"],
                           mean, (var + EPS).rsqrt())

    def max_pool(self, x, kernel, stride, padding):
        return x.max_pool2d(kernel, stride, padding=padding)

    def linear(self, x, name):
        return x.linear(self.parameters[name + ".weight"].T, self.parameters[name + ".bias"])

    def relu(self, x):
        return x.relu()

    def sigmoid(self, x):
        return x.sigmoid()

    def concat(self, a, b):
        return a.cat(b, dim=1)

    def mean_pixels(self, x):
        return x.mean((2, 3))

    def max_pixels(self, x):
        return x.max((2, 3))

    def mean_channels(self, x):
        return x.mean(1, keepdim=True)

    def max_channels(self, x):
        return x.max(1, keepdim=True)

    def scale_channels(self, x, scale):
        return x * scale.reshape(*scale.shape, 1, 1)


class TinygradSide:
    """run() is one run of the program; step() and predict() are for agree.py."""

    def __init__(self, network, program, weights, images, masks):
        from tinygrad import Context, Device, Tensor, TinyJit
        from tinygrad.nn.optim import Adam
        self.device, self.context, self.forward = Device, Context, PLAIN[network]
        parameters, buffers = split_weights(weights)
        self.parameters = {name: Tensor(v).realize() for name, v in parameters.items()}
        self.buffers = {name: Tensor(v).is_param_(False).realize() for name, v in buffers.items()}
        self.images = Tensor(np.ascontiguousarray(images)).realize()
        self.masks = Tensor(masks.astype(np.float32)).realize()
        if program == "train":
            self.adam = Adam(list(self.parameters.values()), LR)
        self.function = TinyJit(self.train if program == "train" else self.probabilities)

    def probabilities(self):
        return self.forward(Net(self.parameters, self.buffers, False), self.images) \
            .sigmoid().realize()

    def train(self):
        with self.context(TRAINING=1):
            x = self.forward(Net(self.parameters, self.buffers, True), self.images)
            loss = x.binary_crossentropy_logits(self.masks)
            self.adam.zero_grad()
            loss.backward()
            return loss.realize(*self.adam.schedule_step(), *self.buffers.values())

    def run(self):
        self.last = self.function()
        self.device[self.device.DEFAULT].synchronize()

    # ---- agree.py ----

    def predict(self):
        return self.probabilities().numpy()

    def step(self):
        """Loss, gradients and how the weights moved in the first step."""
        before = {name: value.numpy() for name, value in self.parameters.items()}
        loss = self.train().item()
        gradients = {name: value.grad.numpy() for name, value in self.parameters.items()}
        moved = {name: value.numpy() - before[name] for name, value in self.parameters.items()}
        return loss, gradients, moved
