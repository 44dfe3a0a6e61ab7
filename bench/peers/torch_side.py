"""PyTorch as it is used at its best on a processor: eager or compiled, oneDNN's convolutions.

Options: channels_last; compiled (torch.compile; for predict with freezing, which folds batch norms
and packs weights). bf16 is autocast. Adam is the fused one. For the allocator see turns.py.
"""
import os

LR = 1e-5


def set_up(threads, options):
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "compiled" in options:
        os.environ["TORCHINDUCTOR_FREEZING"] = "1"


class Probabilities:
    """Makes the module that inference is timed on and that is exported."""

    def __new__(cls, network):
        import torch

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.network = network

            def forward(self, image):
                return torch.sigmoid(self.network(image).float())

        return Module().eval()


def network_with(name, weights):
    import torch
    from networks import NETWORKS
    network = NETWORKS[name]()
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    network.load_state_dict(tensors, strict=False)
    return network


class TorchSide:
    """run() is one run of the program."""

    def __init__(self, network, program, weights, images, masks, precision, options):
        import torch
        self.torch, self.bf16 = torch, precision == "bf16"
        layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
        self.network = network_with(network, weights).to(memory_format=layout)
        self.network.train(program == "train")
        self.images = torch.from_numpy(images).to(memory_format=layout)
        self.masks = torch.from_numpy(masks).float()
        module = self.network if program == "train" else Probabilities(self.network)
        self.forward = torch.compile(module) if "compiled" in options else module
        if program == "train":
            self.adam = torch.optim.Adam(self.network.parameters(), LR, fused=True)
        self.run = self.train if program == "train" else self.predict

    def autocast(self):
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.bf16)

    def predict(self):
        # no_grad: freezing asks for it, and inference_mode is no faster
        with self.torch.no_grad(), self.autocast():
            return self.forward(self.images).numpy()

    def train(self):
        self.adam.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.forward(self.images)
        loss = self.torch.nn.functional.binary_cross_entropy_with_logits(logits.float(),
                                                                         self.masks)
        loss.backward()
        self.adam.step()
        return loss.item()

    # ---- agree.py ----

    def step(self):
        """Loss, gradients and how the weights moved in the first step."""
        parameters = dict(self.network.named_parameters())
        before = {name: p.detach().numpy().copy() for name, p in parameters.items()}
        loss = self.train()
        gradients = {name: p.grad.numpy() for name, p in parameters.items()}
        moved = {name: p.detach().numpy() - before[name] for name, p in parameters.items()}
        return loss, gradients, moved
