"""A ControlNet with its hint and maybe a garment, as it speaks to a guided batch of a locked model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minicc.models.blocks import Context, KeysValues, TransformerBlock, keys_values
from minicc.models.controlnet import Control, ControlNet


@dataclass
class Hinted:
    """A ControlNet with its hint, encoded once, its strength (one number, or one a residual), and maybe a garment."""

    net: ControlNet
    features: Tensor  # (1 or B, width, h, w); a guided batch of 2B sees them twice
    strength: float | Sequence[float] = 1.0
    garment: KeysValues = field(default_factory=dict)  # of models.garment.see: 1 or B of them

    @classmethod
    @torch.no_grad()
    def of(
        cls, net: ControlNet, hint: Tensor, strength: float | Sequence[float] = 1.0, garment: KeysValues | None = None
    ) -> "Hinted":
        """hint: (1 or B, 3, H, W) in [0, 1], masked pixels −1."""
        weight = net.conv_in.weight
        return cls(net, net.controlnet_cond_embedding(hint.to(weight.device, weight.dtype)), strength, garment or {})

    def on(self, branches: Tensor, copies: int = 1) -> Callable[[Tensor, Tensor], Control]:
        """(x, t) → Control, for a batch of these sentences, (copies · B, 77, D): first those to move away from.

        These do not see the garment, so guidance moves towards it.
        """
        texts = [keys_values(self.net, text) for text in branches.chunk(copies if self.garment else 1)]
        texts[-1] |= self.garment

        def control(x: Tensor, t: Tensor) -> Control:
            parts = zip(x.chunk(len(texts)), t.chunk(len(texts)), texts, strict=True)
            return stacked([self(*part) for part in parts])

        return control

    def in_decoder(self, copies: int) -> KeysValues:
        """Layers that a garment adds to the locked decoder, if its ControlNet has any; on the last of the branches.

        They count as much as the residuals do; as the middle one, if these differ.
        """
        strength = self.strength[-1] if isinstance(self.strength, Sequence) else self.strength
        return {m: on_last(f, copies, strength) for m, f in self.garment.items() if isinstance(m, TransformerBlock)}

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Control:
        features = self.features.repeat(len(x) // len(self.features), 1, 1, 1)
        return self.net.control(x, t, context, features) * self.strength


def on_last(layer: Callable[[Tensor], Tensor], copies: int, strength: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The layer, times strength, for the last of a batch's parts; zeros for the others."""

    def added(x: Tensor) -> Tensor:
        *others, last = x.chunk(copies)
        return torch.cat([*map(torch.zeros_like, others), strength * layer(last)])

    return added


def both_of(f: Callable[[Tensor], Tensor], g: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What two garments add to one place of the decoder."""
    return lambda x: f(x) + g(x)


def on_second_half(control: Control) -> Control:
    """Zeros for the first branch of a guided batch (without prompt), the control for the second."""
    return stacked([0.0 * control, control])


def stacked(parts: Sequence[Control]) -> Control:
    """The controls of a batch's parts → the batch's."""
    if len(parts) == 1:
        return parts[0]
    skips = (torch.cat(rs) for rs in zip(*(c.skips for c in parts), strict=True))
    return Control(tuple(skips), torch.cat([c.middle for c in parts]))
