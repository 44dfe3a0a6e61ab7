"""The networks of models/ once more, for frameworks that are not PyTorch.

Written over a few operators, which jax_side.py and tinygrad_side.py implement, each in its own
layout. `net` holds the parameters by the names that our checkpoints use, so a layer is called by
its name. As in networks.py: bytes in, logits out; sizes are multiples of 32, so nothing is padded.
"""
import numpy as np


def double_conv(net, x, name):
    for i in (1, 2):
        x = net.conv(x, f"{name}.conv{i}", padding=1)
        x = net.relu(net.batch_norm(x, f"{name}.batch_norm{i}"))
    return x


def unet(net, image):
    x, skips = net.image(image), []
    for i in range(1, 5):
        x = double_conv(net, x, f"down{i}")
        skips.append(x)
        x = net.max_pool(x, 2, 2, 0)
    x = double_conv(net, x, "bottom")
    for i in range(4, 0, -1):
        x = net.conv_transpose(x, f"up{i}.conv_transpose")
        x = double_conv(net, net.concat(skips.pop(), x), f"up{i}")
    return net.conv(x, "head")


def basic_block(net, x, name, stride):
    y = net.conv(x, f"{name}.conv1", stride, 1)
    y = net.relu(net.batch_norm(y, f"{name}.bn1"))
    y = net.batch_norm(net.conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
    if f"{name}.downsample.0.weight" in net.parameters:
        x = net.batch_norm(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
    return net.relu(y + x)


def cbam(net, x, name):
    gates = [net.linear(net.relu(net.linear(pooled, f"{name}.mlp.0")), f"{name}.mlp.2")
             for pooled in (net.mean_pixels(x), net.max_pixels(x))]
    x = net.scale_channels(x, net.sigmoid(gates[0] + gates[1]))
    pooled = net.concat(net.max_channels(x), net.mean_channels(x))
    return x * net.sigmoid(net.conv(pooled, f"{name}.gate", padding=3))


def resnet34_unet(net, image):
    x = net.relu(net.batch_norm(net.conv(net.image(image), "conv1", 2, 3), "bn1"))
    x, skips = net.max_pool(x, 3, 2, 1), []
    for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(count):
            x = basic_block(net, x, f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1)
        skips.append(x)
    skips.pop()
    for i in range(1, 6):
        x = net.conv_transpose(x, f"decoder{i}.conv_transpose1")
        if skips:
            x = net.concat(skips.pop(), x)
        x = cbam(net, double_conv(net, x, f"decoder{i}"), f"decoder{i}.cbam")
    return net.conv(x, "head")


PLAIN = {"unet": unet, "resnet34_unet": resnet34_unet}


def split_weights(weights):
    """Parameters and buffers of a checkpoint, as numpy arrays."""
    kept = {name: np.asarray(value, np.float32) for name, value in weights.items()
            if not name.startswith("optimizer.") and not name.endswith("num_batches_tracked")}
    buffers = {name: value for name, value in kept.items() if "running_" in name}
    return {name: value for name, value in kept.items() if name not in buffers}, buffers
