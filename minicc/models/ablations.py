"""What the ControlNet paper takes away to show what it was good for (Zhang et al. 2023, figure 8).

(a) the ControlNet; (b) its zero convolutions drawn from a Gaussian, so that the first steps disturb the locked model;
(c) "ControlNet-lite": one convolution in place of every block of the trainable copy. For experiments, not for use.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.models.blocks import Context
from minicc.models.configs import UNetConfig
from minicc.models.controlnet import Control, ControlNet
from minicc.models.unet import UNet, skip_channels


def gaussian_controlnet(unet: UNet, generator: torch.Generator, **kwargs: Any) -> ControlNet:
    """(b): the trainable copy, its zero convolutions with weights from N(0, 1/fan-in) instead of zeros.

    kwargs: of `ControlNet.from_unet`, such as hint_channels.
    """
    control = ControlNet.from_unet(unet, **kwargs)
    zeros = [*control.controlnet_down_blocks, control.controlnet_mid_block, control.controlnet_cond_embedding.conv_out]
    with torch.no_grad():
        for conv in zeros:
            weight = torch.randn(conv.weight.shape, generator=generator)
            conv.weight.copy_(weight / conv.weight[0].numel() ** 0.5)
    return control


class LiteControlNet(ControlNet):
    """(c): the copy's input convolution, then one 3×3 convolution a skip and one for the middle, SiLU between.

    What leaves them goes through zero convolutions, as ever. Neither time nor text is known here.
    """

    def __init__(self, config: UNetConfig, hint_channels: Any = (16, 32, 96, 256)):
        super().__init__(config, hint_channels)
        del self.down_blocks, self.mid_block, self.time_embedding
        widths, level = skip_channels(config), config.layers_per_block + 1  # each level ends with half the side
        outputs = [*widths[1:], config.block_out_channels[-1]]
        halves = [i % level == level - 1 and i < len(widths) - 1 for i in range(len(widths))]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=1 + half, padding=1) for i, o, half in zip(widths, outputs, halves, strict=True)
        )

    @classmethod
    def from_unet(cls, unet: UNet, hint_channels: Any = (16, 32, 96, 256), **kwargs: Any) -> "LiteControlNet":
        """On the U-Net's device, in its dtype; only the input convolution is a copy."""
        weight = unet.conv_in.weight
        control = cls(unet.config, hint_channels).to(weight.device, weight.dtype)
        control.conv_in.load_state_dict(unet.conv_in.state_dict())
        return control

    def control(self, x: Tensor, t: Tensor, context: Context, features: Tensor) -> Control:
        """As in ControlNet; t and context are not used."""
        h = self.conv_in(x) + features
        skips = [h]
        for conv in self.convs:
            h = conv(F.silu(h))
            skips.append(h)
        *skips, middle = skips
        residuals = (Z(s) for Z, s in zip(self.controlnet_down_blocks, skips, strict=True))
        return Control(tuple(residuals), self.controlnet_mid_block(middle))
