"""A paper doll: who it is, what it wears, and everything that can be known about its picture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image

from minicc.data.dolls import captions, cut, rig, shop
from minicc.data.dolls.body import body
from minicc.data.dolls.canvas import Canvas, folded
from minicc.data.dolls.colours import EYES, HAIR, SKIN
from minicc.data.dolls.curves import Affine
from minicc.data.dolls.hair import STYLES
from minicc.data.dolls.head import EXPRESSIONS, face, head
from minicc.data.dolls.pieces import Piece, lay
from minicc.data.dolls.scenes import BACKGROUNDS, background
from minicc.data.dolls.wardrobe import CLASSES, SLOTS, Garment, Outfit
from minicc.errors import Error

# From the back to the front: (slot, layer). "hair" and "skin" are no slots of the wardrobe.
LAYERS: tuple[tuple[str, str], ...] = (
    ("hair", "behind"), ("top", "back"), ("skin", "body"), ("shoes", "feet"),
    ("bottom", "legs"), ("onepiece", "legs"), ("top", "torso"), ("onepiece", "torso"), ("accessory", "torso"),
    *((slot, arm) for arm in ("arm_l", "arm_r") for slot in ("skin", "top", "onepiece")),
    ("skin", "head"), ("accessory", "face"), ("hair", "hair"), ("hat", "hat"), ("accessory", "hat"),
)  # fmt: skip
OPTIONS = {
    "build": rig.BUILDS, "pose": rig.POSES, "skin": tuple(SKIN), "hair": tuple(STYLES), "hair_colour": tuple(HAIR),
    "eyes": tuple(EYES), "expression": EXPRESSIONS, "background": BACKGROUNDS,
}  # fmt: skip


@dataclass(frozen=True)
class Character:
    """All of a doll but its clothes; each field is one of `OPTIONS`."""

    build: str
    pose: str
    skin: str
    hair: str
    hair_colour: str
    eyes: str
    expression: str
    background: str

    def __post_init__(self) -> None:
        for name, options in OPTIONS.items():
            if getattr(self, name) not in options:
                raise Error(f"{name}={getattr(self, name)!r}: expected one of {', '.join(options)}")


@dataclass(frozen=True)
class Doll:
    """A drawn character with its ground truth. Pictures are drawn when first asked for, `size` pixels square."""

    character: Character
    outfit: Outfit
    size: int = 128
    words: int = 0  # seed of the sentences' wording

    @cached_property
    def canvas(self) -> Canvas:
        """The doll without its background, finer than the picture."""
        canvas = Canvas(self.size)
        bones = rig.bones(self.character.pose, self.character.build)
        for slot, layer in LAYERS:
            draw_layer(canvas, self, slot, layer, bones)
        return canvas

    @cached_property
    def image(self) -> Image.Image:
        """The doll, RGBA; opaque unless its background is "none"."""
        picture = self.canvas.picture()
        if self.character.background == "none":
            return picture
        rgba = np.asarray(picture).astype(np.int64)
        alpha, behind = rgba[..., 3:], background(self.character.background, self.size)
        rgb = (rgba[..., :3] * alpha + behind * (255 - alpha) + 127) // 255
        return Image.fromarray(rgb.astype(np.uint8), "RGB").convert("RGBA")

    @property
    def layers(self) -> dict[str, Image.Image]:
        """The doll taken apart, RGBA by name, from the back to the front, as "07_top_torso"; each is whole.

        Laid on one another they give the picture, but for the mixed pixels at the edges of layers.
        """
        bones = rig.bones(self.character.pose, self.character.build)
        found = {}
        if self.character.background != "none":
            opaque = Image.fromarray(background(self.character.background, self.size).astype(np.uint8), "RGB")
            found["00_background"] = opaque.convert("RGBA")
        for i, (slot, layer) in enumerate(LAYERS, 1):
            canvas = Canvas(self.size)
            draw_layer(canvas, self, slot, layer, bones)
            if canvas.part.any():
                found[f"{i:02}_{slot}_{layer}"] = canvas.picture()
        return found

    @cached_property
    def index(self) -> np.ndarray:
        """(size, size) uint8: 0 none, 1 top, 2 bottom, 3 one-piece, 4 shoes, 5 hat and accessory, 6 hair, 7 skin.

        A pixel that clothes touch at all is clothes, so that nothing outside of them changes with them.
        """
        classes = np.array([0 if part is None else CLASSES[part.slot] for part in self.canvas.parts], np.uint8)
        fine = classes[self.canvas.part]
        counts = np.stack([folded(fine == number) for number in range(8)], -1)  # (size, size, 8)
        clothes, bare = counts[..., 1:6], counts[..., [0, 6, 7]]
        body_part = np.array([0, 6, 7], np.uint8)[bare.argmax(-1)]
        return np.where(clothes.any(-1), clothes.argmax(-1) + 1, body_part).astype(np.uint8)

    @property
    def slots(self) -> tuple[str, ...]:
        """Where something is worn: of "top", "bottom", "onepiece", "shoes", "hat", "accessory"."""
        return tuple(slot for slot, _ in self.outfit.items())

    @property
    def caption(self) -> str:
        """A sentence about the whole picture."""
        return captions.caption(self.character, self.outfit, self.words)

    @property
    def outfit_text(self) -> str:
        """The clothes in words."""
        return captions.outfit_text(self.outfit, self.words)

    def wearing(self, outfit: Outfit) -> "Doll":
        """The same character in other clothes: the same bytes wherever neither index mask shows clothes."""
        return replace(self, outfit=outfit)

    def flat(self, slot: str, background: str = "white") -> Image.Image:
        """The garment worn in this slot as a shop shows it: RGB on "white", RGBA on "transparent"."""
        if background not in ("white", "transparent"):
            raise Error(f"background={background!r}: expected white or transparent")
        return shop.picture(self.worn(slot), self.size, background == "white")

    def correspondence(self, slot: str) -> np.ndarray:
        """(size, size, 2) float32: the (x, y) in `flat(slot)`, in pixels, that each pixel of the garment shows.

        NaN where the garment is not, and where it shows what the flat picture hides.
        """
        return shop.correspondence(self.canvas, self.worn(slot), slot)

    def worn(self, slot: str) -> Garment:
        """The garment in this slot; raises Error if there is none."""
        garments = dict(self.outfit.items())
        if slot not in garments:
            raise Error(f"nothing is worn as {slot!r}; this doll's slots are {', '.join(garments)}")
        return garments[slot]

    def attributes(self) -> dict[str, str]:
        """Every fact that the picture shows, by name; "none" for a slot without clothes."""
        facts = {name: getattr(self.character, name) for name in OPTIONS}
        garments = dict(self.outfit.items())
        for slot in SLOTS:
            garment = garments.get(slot)
            facts[slot] = garment.kind if garment else "none"
            facts[f"{slot}_colour"] = garment.colour if garment else "none"
            if slot in ("top", "bottom", "onepiece"):
                facts[f"{slot}_pattern"] = garment.pattern if garment else "none"
                facts[f"{slot}_length"] = garment.length if garment else "none"
        return facts


def draw_layer(canvas: Canvas, doll: Doll, slot: str, layer: str, bones: Mapping[str, Affine]) -> None:
    """One line of LAYERS."""
    garment = dict(doll.outfit.items()).get(slot)
    if garment:
        shop.lay_garment(canvas, garment, slot, layer, bones)
    elif slot in ("hair", "skin"):
        who = doll.character
        skin = cut.skin_palette(who.skin, who.eyes, who.hair_colour)
        palette = cut.hair_palette(who.hair_colour) if slot == "hair" else skin
        lay(
            canvas,
            [piece for piece in bare(slot, who.hair, who.expression) if piece.layer == layer],
            slot,
            bones,
            palette,
        )


@lru_cache
def bare(slot: str, hair: str, expression: str) -> tuple[Piece, ...]:
    """All pieces of the hair, or of the skin."""
    return tuple(STYLES[hair]()) if slot == "hair" else (*body(), *head(), *face(expression))
