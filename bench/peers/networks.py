"""The networks of models/ in plain PyTorch, with the names that our checkpoints use.

They are a second opinion: written from the papers and from docs/language.md, they share nothing
with the compiler but the parameters' names, so that one file of weights runs in both. Pictures are
bytes [N, 3, H, W]; forward() gives logits, and sigmoid of them is the model's output.
"""
import torch
import torch.nn.functional as F
from torch import nn


def fit(x, height, width):
    """Zeros around x, the odd row or column at the end, or the middle of it: pad, then crop."""
    if x.shape[2] == height and x.shape[3] == width:
        return x    # no copy, and nothing in an exported graph
    down, right = max(0, height - x.shape[2]), max(0, width - x.shape[3])
    x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top:top + height, left:left + width]


def fit_like(x, other):
    return fit(x, other.shape[2], other.shape[3])


class DoubleConv(nn.Module):
    """Twice convolution, batch normalisation, relu."""

    def __init__(self, inputs, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        x = torch.relu(self.batch_norm1(self.conv1(x)))
        return torch.relu(self.batch_norm2(self.conv2(x)))


# ---- U-Net ---------------------------------------------------------------------------------------

class UnetUp(DoubleConv):
    def __init__(self, inputs, channels):
        super().__init__(2 * channels, channels)
        self.conv_transpose = nn.ConvTranspose2d(inputs, channels, 2, stride=2)

    def forward(self, x, skip):
        x = fit_like(self.conv_transpose(x), skip)
        return super().forward(torch.cat([skip, x], 1))


class Unet(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.down1 = DoubleConv(3, width)
        self.down2 = DoubleConv(width, 2 * width)
        self.down3 = DoubleConv(2 * width, 4 * width)
        self.down4 = DoubleConv(4 * width, 8 * width)
        self.bottom = DoubleConv(8 * width, 16 * width)
        self.up4 = UnetUp(16 * width, 8 * width)
        self.up3 = UnetUp(8 * width, 4 * width)
        self.up2 = UnetUp(4 * width, 2 * width)
        self.up1 = UnetUp(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image):
        skip1 = self.down1(image / 255)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        skip3 = self.down3(F.max_pool2d(skip2, 2))
        skip4 = self.down4(F.max_pool2d(skip3, 2))
        x = self.bottom(F.max_pool2d(skip4, 2))
        x = self.up2(self.up3(self.up4(x, skip4), skip3), skip2)
        return self.head(self.up1(x, skip1))


# ---- ResNet-34 as an encoder ---------------------------------------------------------------------

class BasicBlock(nn.Module):
    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or inputs != channels:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False),
                                            nn.BatchNorm2d(channels))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Resnet34Encoder(nn.Module):
    def __init__(self, stem_padding=3, pool_padding=1):
        super().__init__()
        self.pool_padding = pool_padding
        self.conv1 = nn.Conv2d(3, 64, 7, 2, stem_padding, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self.layer(64, 64, 3, 1)
        self.layer2 = self.layer(64, 128, 4, 2)
        self.layer3 = self.layer(128, 256, 6, 2)
        self.layer4 = self.layer(256, 512, 3, 2)

    @staticmethod
    def layer(inputs, channels, count, stride):
        first = BasicBlock(inputs, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(count - 1)))

    def encode(self, image):
        """The results of the four layers."""
        x = torch.relu(self.bn1(self.conv1(image / 255)))
        features = [F.max_pool2d(x, 3, 2, self.pool_padding)]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features[1:]


class Cbam(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels // reduction), nn.ReLU(),
                                 nn.Linear(channels // reduction, channels))
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        # max, not amax: as in ours, the gradient goes to the first of equal values
        logits = self.mlp(x.mean((2, 3))) + self.mlp(x.flatten(2).max(2).values)
        x = x * torch.sigmoid(logits)[:, :, None, None]
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.gate(pooled))


# ---- ResNet34-U-Net, with U-Net's decoder --------------------------------------------------------

class CbamUp(DoubleConv):
    def __init__(self, inputs, channels, skip):
        super().__init__(channels + skip, channels)
        self.conv_transpose1 = nn.ConvTranspose2d(inputs, channels, 2, stride=2)
        self.cbam = Cbam(channels)

    def forward(self, x, skip=None):
        x = self.conv_transpose1(x)
        if skip is not None:
            x = torch.cat([skip, fit_like(x, skip)], 1)
        return self.cbam(super().forward(x))


class Resnet34Unet(Resnet34Encoder):
    def __init__(self, **paddings):
        super().__init__(**paddings)
        self.decoder1 = CbamUp(512, 256, 256)
        self.decoder2 = CbamUp(256, 128, 128)
        self.decoder3 = CbamUp(128, 64, 64)
        self.decoder4 = CbamUp(64, 64, 0)
        self.decoder5 = CbamUp(64, 32, 0)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, image):
        x1, x2, x3, x4 = self.encode(image)
        x = self.decoder3(self.decoder2(self.decoder1(x4, x3), x2), x1)
        return self.head(fit_like(self.decoder5(self.decoder4(x)), image))


# ---- ResNet34-U-Net of the paper -----------------------------------------------------------------

class Unit(nn.Module):
    """Convolution, relu, batch normalisation, in the paper's order."""

    def __init__(self, inputs, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1)
        self.batch_norm1 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.batch_norm1(torch.relu(self.conv1(x)))


class Step(Unit):
    def __init__(self, inputs):
        super().__init__(inputs, 32)
        self.cbam = Cbam(32)

    def forward(self, x):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.cbam(super().forward(x))


class Resnet34UnetPaper(Resnet34Encoder):
    def __init__(self, **paddings):
        super().__init__(**paddings)
        self.bridge = Unit(512, 256)
        self.decoder1 = Step(256 + 512)
        self.decoder2 = Step(32 + 256)
        self.decoder3 = Step(32 + 128)
        self.decoder4 = Step(32 + 64)
        self.decoder5 = Step(32)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, image):
        x1, x2, x3, x4 = self.encode(image)
        x = self.decoder1(torch.cat([self.bridge(x4), x4], 1))
        for decoder, skip in ((self.decoder2, x3), (self.decoder3, x2), (self.decoder4, x1)):
            x = decoder(torch.cat([fit_like(x, skip), skip], 1))
        return self.head(fit_like(self.decoder5(x), image))


NETWORKS = {"unet": Unet, "resnet34_unet": Resnet34Unet, "resnet34_unet_paper": Resnet34UnetPaper}
