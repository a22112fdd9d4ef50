"""Phase 2: a character and a picture of a garment → the character wears it; where the clothes are is found."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from minicc.errors import Error
from minicc.models.controlnet import ControlNet
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.detect import clothing_mask
from minicc.outfit.garment import seen
from minicc.outfit.phase1 import Result, fill, prepare
from minicc.pipeline import Hinted, StableDiffusion


def generate(
    sd: StableDiffusion, control: ControlNet, character: Image.Image, garment: Image.Image | Sequence[Image.Image],
    *, seed: int = 0, **options: object,
) -> Result:  # fmt: skip
    """Dress a character in a garment; one variant. Options as in `variants`."""
    return variants(sd, control, character, garment, seeds=[seed], **options)[0]  # type: ignore[arg-type]


def variants(
    sd: StableDiffusion,
    control: ControlNet,
    character: Image.Image,
    garment: Image.Image | Sequence[Image.Image],
    *,
    detector: ClothingDetector | None = None,
    mask: Image.Image | np.ndarray | None = None,
    classes: Sequence[str] = (),
    prompt: str = "",
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float = 2.0,
    strength: float = 1.0,
    eta: float = 0.0,
    feather: int = 0,
    max_side: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Dress a character in a garment several times, one result a seed, all in one batch.

    garment: its picture, on a plain or transparent ground, or the pictures of a whole outfit. mask: white over what
    shall change; None: the detector finds it. classes: which clothes it looks for ("top", "bottom", …), all if empty.
    guidance: on garment and prompt together, 1 is none. The other options are those of `phase1.variants`; outside the
    mask nothing changes, as there. Raises PictureError for a mask or garment that does not fit, or if no clothes are
    found, and Error if there is neither mask nor detector.
    """
    if mask is None:
        if detector is None:
            raise Error("where are the clothes? pass detector=minicc.ClothingDetector.load(…), or a mask")
        mask = clothing_mask(detector.find(sd, character), classes)
    ready = prepare(sd, character, mask, feather, max_side)
    garments = [garment] if isinstance(garment, Image.Image) else list(garment)
    hinted = Hinted.of(control, ready.hint, strength, seen(sd, control, garments) if garments else None)
    pictures = fill(
        sd, ready.image, ready.mask, [prompt], seeds, [hinted],
        steps=steps, guidance=guidance, eta=eta, progress=progress,
    )  # fmt: skip
    return [ready.result(picture, prompt, seed) for picture, seed in zip(pictures, seeds, strict=True)]
