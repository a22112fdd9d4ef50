"""Phase 2's mask, drawn tighter while the garment appears: what a garment leaves as it was returns to the character.

The automatic mask reaches as far as the kind of garment may, for nobody knows yet how long its sleeves will be. When
three quarters of the steps are done they can be seen. Where the drawing shows what was there before, bare skin, the
ground, trousers under a new top, the character's own pixels come back; the steps that are left, and `seamless`, close
the seam. A mask that begins wide and shrinks is that of Blended Latent Diffusion (Avrahami et al. 2022, arXiv
2206.02779), for thin masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import binary_erosion, binary_opening
from torch import Tensor

from minicc.data.tensors import to_image
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.compose import grow
from minicc.outfit.editing import DISK
from minicc.outfit.phase1 import Ready
from minicc.outfit.reach import REPLACES, whole_height
from minicc.pipeline import StableDiffusion

SURE = 0.5  # the least probability of a pixel's class, before and now, to believe that it is the same
AROUND = 0.02  # of the figure's height: so far around what changed the drawing stays, 2 pixels of a doll


@dataclass(frozen=True)
class AutomaticMask:
    """What garments shall change on a character, as the detector sees it."""

    mask: np.ndarray  # (H, W) bool
    notes: list[str]  # what was recognised, in words
    clothes: Clothes  # what the character wears
    kinds: Sequence[str] = ()  # what the garments are; empty if that was not asked or not recognised
    words: str = ""  # what one garment is called, if it has a name


@dataclass
class Narrowing:
    """A batch's masks; called with what is drawn so far, it narrows those whose garments were recognised."""

    sd: StableDiffusion
    detector: ClothingDetector
    ready: list[Ready]  # with the masks of now
    found: Sequence[AutomaticMask]
    feather: int = 0  # pixels by which the masks were grown, and are again

    def __call__(self, drawn: Tensor) -> Tensor:
        """drawn: (B, 3, h, w) in [-1, 1], the windows. Returns their masks, (B, 1, h, w)."""
        self.ready = [self.narrowed(*one) for one in zip(self.ready, self.found, drawn, strict=True)]
        return torch.cat([one.mask for one in self.ready])

    def narrowed(self, ready: Ready, found: AutomaticMask, drawn: Tensor) -> Ready:
        """With the mask left of one character when its window is drawn like this, (3, h, w)."""
        if not found.kinds:
            return ready
        picture = ready.place.put(ready.character, to_image(drawn), ready.declared)
        now = self.detector.find(self.sd, picture)
        changed = ready.declared & ~unchanged(found.clothes, now, found.kinds, ready.declared)
        if not changed.any():
            return ready
        declared = grow(changed, self.feather) & ready.declared
        return replace(ready, declared=declared, mask=ready.place.take_mask(declared))


def unchanged(before: Clothes, now: Clothes, kinds: Sequence[str], mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: where both show the same, and none of what garments of these kinds replace; not close to the rest.

    mask: (H, W) bool; outside it nothing has changed.
    """
    sure = np.minimum(before.probabilities.max(0), now.probabilities.max(0)) > SURE
    replaced = before.layer(*(name for kind in kinds for name in REPLACES[kind]))
    same = ~mask | ((before.index == now.index) & sure & ~replaced)
    pixels = max(1, round(AROUND * whole_height(before)[0]))
    return binary_erosion(binary_opening(same, DISK), DISK, iterations=pixels, border_value=1)
