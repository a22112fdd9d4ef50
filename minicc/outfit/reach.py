"""Which clothes a garment takes the place of, and how far it may reach on this body: the automatic mask of phase 2."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, binary_opening, find_objects, label

from minicc.data.samples import CLASSES, CLOTHES
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.detect import SMALLEST, clothing_mask
from minicc.outfit.editing import DISK, without_spots
from minicc.outfit.garment import Placed, placed
from minicc.pipeline import StableDiffusion

REPLACES = {
    "top": ("top", "dress"), "bottom": ("bottom", "dress"), "dress": ("dress", "top", "bottom"),
    "shoes": ("shoes",), "accessory": ("accessory",),
}  # fmt: skip
# From where to where a garment may reach: parts of the figure's height, from its highest pixel to its lowest, and how
# far beside the body, in parts of its height too. Measured on dolls: see tests/outfit/test_reach.py.
SPANS = {
    "top": (0.38, 0.78, 0.02), "bottom": (0.68, 0.96, 0.06), "dress": (0.38, 0.96, 0.05), "shoes": (0.79, 1.02, 0.02),
}  # fmt: skip
NECK = 0.46  # of the height: where clothes begin at the lowest; of 150 dolls at 0.36 to 0.46
COLLAR = 0.04  # of the height: so much higher may a new collar be on a bust; above may be the face, so no more
SHARE = 0.5  # of the likeliest kind, at least
HAND = 0.11  # of the height: as large is a hand at most, or two that are clasped
HIPS = 0.86  # of the height: lower than that no hand hangs
RIM = 0.01  # of the height: so much of a hand's edge may a sleeve cover
SOLES = 0.95  # below this height shoes are shoes; what they cover above it, as boots do, trousers may cover


def kinds_of(sd: StableDiffusion, detector: ClothingDetector, garment: Image.Image) -> list[str]:
    """Which of the clothes' classes a garment's picture shows, the most of it first: one, or those of a whole outfit.

    What has no name is read off its pixels: a class counts whose probability, over the garment, is `SHARE` of the
    largest, and which may be worn together with those before it: no top with a dress. Empty if the detector sees no
    clothes there.
    """
    return kinds_in(sd, detector, placed(garment, sd.side))


def kinds_in(sd: StableDiffusion, detector: ClothingDetector, one: Placed) -> list[str]:
    """The same of a garment that is laid already."""
    return recognised(sd, detector, one)[0]


def recognised(sd: StableDiffusion, detector: ClothingDetector, one: Placed) -> tuple[list[str], str]:
    """Kinds of a garment, and what it is called; "" if it has no name. One with a name is of the kind that it says."""
    name = detector.name(sd, one.picture)
    return (kinds_seen(sd, detector, one), "") if name is None else ([name.kind], name.words)


def kinds_seen(sd: StableDiffusion, detector: ClothingDetector, one: Placed) -> list[str]:
    """Kinds of a garment, read off its pixels: see `kinds_of`."""
    found = detector.find(sd, one.picture)
    if not np.isin(found.index[one.shown], CLOTHES).any():
        return []
    amounts, kinds = found.probabilities[list(CLOTHES)][:, one.shown].sum(1), list[str]()
    for i in np.argsort(-amounts, kind="stable"):
        kind = CLASSES[CLOTHES[i]]
        if amounts[i] >= SHARE * amounts.max() and not any(kind in REPLACES[other] for other in kinds):
            kinds.append(kind)
    return kinds


def reaching_mask(clothes: Clothes, kinds: Sequence[str]) -> np.ndarray:
    """(H, W) bool: the clothes that garments of these kinds replace, and the body that they may newly cover.

    A short sleeve's mask would leave no room for a long one. So bare skin and the gaps between the limbs are masked as
    well, between the heights that the kind may reach; hair, hands and what lies outside these heights stays.
    Raises PictureError if none of the clothes are found; bare feet are enough for shoes.
    """
    replaced = [name for kind in kinds for name in REPLACES[kind]]
    mask = np.any([reach(clothes, kind) for kind in kinds], axis=0)
    if set(kinds) != {"shoes"} or worn(clothes, "shoes") or not mask.any():
        mask |= clothing_mask(clothes, [name for name in replaced if worn(clothes, name)] or replaced)
    return mask & ~clothes.layer("hair") & ~hands(clothes)


def half_replaced(clothes: Clothes, kinds: Sequence[str]) -> list[str]:
    """A note if a one-piece makes way for a top alone, or a bottom alone: nobody has said what the other half wears."""
    sizes = {name: int(clothes.layer(name).sum()) for name in ("dress", "top", "bottom")}
    given = [name for name in ("top", "bottom") if name in kinds]
    if len(given) != 1 or "dress" in kinds or sizes["dress"] <= sizes["top"] + sizes["bottom"]:
        return []
    other, where = ("bottom", "below") if given == ["top"] else ("top", "above")
    return [f"the character's one-piece makes way: what is worn {where} is invented, unless a {other} is given too"]


def worn(clothes: Clothes, name: str) -> bool:
    return bool(clothes.layer(name).any())


def reach(clothes: Clothes, kind: str) -> np.ndarray:
    """(H, W) bool: the body, bare or clothed, where such a garment may be; nothing for hats and accessories."""
    figure = clothes.index > 0
    if kind not in SPANS or not figure.any():
        return np.zeros_like(figure)
    first, last, beside = SPANS[kind]
    top, height, is_bust = int(figure.any(1).argmax()), *whole_height(clothes)
    first = max(first, NECK - COLLAR) if is_bust else first
    pixels = max(1, round(beside * height))
    heights = (np.arange(len(figure)) - top)[:, None] / height  # (H, 1): of each row, 0 at the head
    inside = (heights >= first) & (heights <= last)
    shoes, accessory = clothes.layer("shoes"), clothes.layer("accessory")
    if kind == "shoes":
        legs = binary_dilation(standing(clothes.layer("skin", "shoes"), heights), DISK, iterations=pixels)
        beside_trousers = binary_dilation(clothes.layer("bottom"), DISK, iterations=pixels) & ~figure
        return (legs | beside_trousers) & inside & ~accessory
    body = without_spots(clothes.layer("skin", "top", "bottom", "dress"), round(SMALLEST * figure.size))
    if kind != "top":  # a skirt hangs between the legs
        body = closed(body & inside, round(0.08 * height))
    body = binary_dilation(body, DISK, iterations=pixels)
    return (body | shoes) & inside & ~(accessory | (shoes & (heights > SOLES)))


def hands(clothes: Clothes) -> np.ndarray:
    """(H, W) bool: hands that come out of sleeves, without their rim: small parts of the skin, above the legs, that are
    not a neckline. They are drawn over any sleeve and tell the pose. A bare arm has none: where it ends, who knows.
    """
    layer, skin = np.zeros(clothes.index.shape, bool), clothes.layer("skin")
    height = whole_height(clothes)[0]
    if not height:
        return layer
    top = int((clothes.index > 0).any(1).argmax())
    middle = np.median(np.nonzero((clothes.index > 0)[top : top + max(1, round(NECK * height))])[1])  # the head's
    parts, _ = label(skin)
    for number, (rows, columns) in enumerate(find_objects(parts), 1):
        part = parts[rows, columns] == number
        y, x = (rows.start + rows.stop) / 2 - top, (columns.start + columns.stop) / 2 - middle
        neckline = abs(x) < 0.12 * height and y < 0.56 * height
        if max(part.shape) <= HAND * height and NECK * height < y < HIPS * height and not neckline:
            layer[rows, columns] |= part
    return binary_erosion(layer, DISK, iterations=max(1, round(RIM * height)))


def standing(layer: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Those connected parts that come down to where soles are: legs and feet, and no hand that hangs low."""
    parts, _ = label(layer)
    return layer & np.isin(parts, parts[heights[:, 0] > SOLES])


def whole_height(clothes: Clothes) -> tuple[int, bool]:
    """The figure's height in pixels, 0 if nothing is found, and whether it is a bust: the picture's lower edge cuts its
    top or dress, and more than half of what is seen is head. Then the height is told from where that garment begins.
    """
    rows = np.flatnonzero((clothes.index > 0).any(1))
    height, garment = int(rows[-1] - rows[0] + 1) if rows.size else 0, largest(clothes.layer("top", "dress"))
    lowest = garment[-max(1, len(garment) // 50) :]  # rows
    if not garment.any() or lowest.any(0).sum() < garment.any(0).sum() / 2:
        return height, False
    above = int(np.any(garment, axis=1).argmax() - rows[0])  # rows of head and neck
    return (round(above / NECK), True) if above > height / 2 else (height, False)


def largest(layer: np.ndarray) -> np.ndarray:
    """The largest connected part, (H, W) bool."""
    parts, count = label(layer)
    return parts == np.bincount(parts[layer]).argmax() if count else layer


def closed(layer: np.ndarray, pixels: int) -> np.ndarray:
    """The layer with gaps of up to twice as many pixels filled, row by row; not where they close in one or two rows."""
    padded = np.pad(layer, ((0, 0), (pixels, pixels)))
    filled = binary_closing(padded, np.ones((1, 2 * pixels + 1), bool))[:, pixels : pixels + layer.shape[1]]
    return layer | binary_opening(filled, np.ones((3, 1), bool))
