"""From a garment to its pieces, its palette and its cloth; from skin and hair to theirs."""

from functools import lru_cache

from minicc.data.dolls import extras
from minicc.data.dolls.bottoms import BOTTOMS
from minicc.data.dolls.colours import CLOTH, EYES, HAIR, SECOND, SKIN, Colour, mix, shade, times
from minicc.data.dolls.costumes import TOPS
from minicc.data.dolls.onepieces import ONEPIECES
from minicc.data.dolls.patterns import Logo
from minicc.data.dolls.pieces import Cloth, Palette, Piece, palette_of
from minicc.data.dolls.wardrobe import Garment

RED: Colour = (222, 56, 62)
LOGOS: dict[str, Logo] = {
    "top": ("torso", 0.0, 0.125, 0.052),
    "bottom": ("leg_r", 0.0, 0.064, 0.042),
    "onepiece": ("torso", 0.0, 0.28, 0.056),
    "skirt": ("torso", 0.034, 0.308, 0.046),
    "shirt": ("torso", -0.064, 0.13, 0.044),
    "jacket": ("torso", 0.082, 0.238, 0.04),
    "hoodie": ("torso", 0.0, 0.122, 0.046),
    "armour": ("torso", -0.048, 0.115, 0.044),
    "vest": ("torso", -0.062, 0.11, 0.042),
    "sailor top": ("torso", 0.07, 0.18, 0.044),
    "kimono top": ("torso", 0.0, 0.25, 0.036),
    "overalls": ("torso", 0.0, 0.214, 0.042),
    "kimono": ("torso", -0.05, 0.31, 0.052),
    "robe": ("torso", -0.064, 0.33, 0.05),
    "jumpsuit": ("torso", 0.062, 0.246, 0.042),
}  # by kind, else by slot: where the heart is, and how large


@lru_cache(maxsize=4096)
def pieces_of(garment: Garment) -> tuple[Piece, ...]:
    """The shapes of a garment."""
    if garment.slot in ("top", "bottom", "onepiece"):
        return tuple((TOPS | BOTTOMS | ONEPIECES)[garment.kind](garment.length))
    return tuple((extras.SHOES | extras.HATS | extras.ACCESSORIES)[garment.kind]())


@lru_cache(maxsize=256)
def palette(garment: Garment) -> Palette:
    """What the fills of its pieces mean."""
    main, second = CLOTH[garment.colour], SECOND[garment.colour]
    warm = garment.colour in ("red", "orange", "pink")
    return palette_of(main, second) | {
        "obi": times(second, (214, 206, 220)),
        "obi_cord": main,
        "string": second,
        "pocket": times(main, (228, 222, 232)),
        "inner": shade(shade(main)),
        "inner_line": (196, 194, 204),
        "tie": SECOND["white"] if warm else RED,
        "trim": second,
        "trim_line": main,
        "ribbon": SECOND["white"] if warm else RED,
    }


def cloth(garment: Garment) -> Cloth:
    """Its fabric, and where the logo goes."""
    where = "skirt" if "skirt" in garment.kind else garment.kind
    return Cloth(garment.colour, garment.pattern, LOGOS.get(where, LOGOS.get(garment.slot)), span(garment))


def span(garment: Garment) -> tuple[float, float]:
    """What a gradient runs over: the garment's visible height."""
    if garment.slot == "bottom":
        return 0.25, 0.37 if garment.length == "short" or garment.kind in ("shorts", "pleated skirt") else 0.44
    return (0.0, 0.4) if garment.slot == "onepiece" else (0.0, 0.26)


@lru_cache(maxsize=1024)
def skin_palette(skin: str, eyes: str, hair: str) -> Palette:
    """The fills of body and face."""
    tone, iris, brow = SKIN[skin], EYES[eyes], HAIR[hair]
    return palette_of(tone, tone) | {
        "skin": tone,
        "blush": mix(tone, (240, 84, 96), 34),
        "fold": mix(shade(tone), (200, 80, 70), 40),
        "iris": iris,
        "iris_dark": mix(iris, (30, 20, 50), 55),
        "iris_light": mix(iris, (255, 255, 255), 45),
        "lash": (52, 32, 46),
        "brow": mix(brow, (50, 30, 50), 45),
        "mouth": (150, 48, 58),
        "tongue": (240, 120, 120),
    }


@lru_cache
def hair_palette(colour: str) -> Palette:
    """The fills of hair."""
    main = HAIR[colour]
    light = mix(main, (255, 255, 255), 40)
    return palette_of(main, main) | {"hair": main, "hair_back": shade(main), "hair_light": light, "tie": RED}
