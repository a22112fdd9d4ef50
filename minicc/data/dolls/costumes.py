"""Tops that cross, protect, or lie over a shirt: kimono top, armour, vest."""
# fmt: off

from collections.abc import Callable

from minicc.data.dolls import tops
from minicc.data.dolls.curves import Path, both, ellipse
from minicc.data.dolls.pieces import Piece, detail, mirror, patch, seam

# A kimono's sleeve: it hangs from the lower arm.
WIDE_LOWER: Path = (
    (-0.04, -0.02), (0.0, -0.036), (0.042, -0.01), (0.05, 0.05), (0.056, 0.096, 1), (0.0, 0.104), (-0.082, 0.096, 1),
    (-0.092, 0.06), (-0.07, 0.01),
)


def wide_sleeves() -> list[Piece]:
    """Sleeves that widen to the hand, with a lining at the end."""
    end = ((-0.1, 0.078, 1), (0.07, 0.078, 1), (0.07, 0.12, 1), (-0.1, 0.12, 1))
    trim = [detail("lower_r", end, "second", "arm_r"), seam("lower_r", (-0.1, 0.078), (0.07, 0.078), layer="arm_r",
        width=0.006)]
    arm = [Piece("upper_r", tops.LONG_UPPER, "main", "arm_r"), Piece("lower_r", WIDE_LOWER, "main", "arm_r")]
    return mirror([*arm, *trim])


def crossing(bottom: float) -> list[Piece]:
    """The crossed collar: the wearer's left side over the right, as the living wear it."""
    under = ((-0.052, -0.016, 1), (-0.024, -0.012, 1), (0.05, bottom - 0.03, 1), (0.024, bottom - 0.02, 1))
    over = ((0.024, -0.012, 1), (0.056, -0.016, 1), (0.05, 0.03), (-0.056, bottom, 1), (-0.094, bottom, 1),
        (0.0, 0.05))
    throat = ((-0.026, -0.014, 1), (0.026, -0.014, 1), (0.012, 0.04, 1), (0.0, 0.05, 1), (-0.012, 0.03, 1))
    return [detail("torso", throat, "white"), patch("torso", under, "second", shaded=False), patch("torso",
        over, "second", shaded=False)]


def obi(y: float = 0.15, height: float = 0.062) -> list[Piece]:
    """The broad belt, with its cord and knot."""
    belt = both((0, y - 0.004), (0.114, y - 0.008, 1), (0.116, y + height - 0.004, 1), (0, y + height))
    cord = seam("torso", (-0.13, y + height / 2), (0.13, y + height / 2), fill="obi_cord", width=0.013)
    knot = patch("torso", ellipse(0, y + height / 2, 0.014, 0.012), "obi_cord", shaded=False)
    return [patch("torso", belt, "obi"), cord, knot]


def kimono_top(length: str) -> list[Piece]:
    """Crossed collar, belt, wide sleeves, a short skirt below the belt."""
    body = both((0, -0.004), (0.05, -0.014, 1), (0.1, 0.002), (0.126, 0.05), (0.11, 0.15), (0.114, 0.2),
        (0.142, 0.276, 1), (0, 0.288))
    fold = seam("torso", (0.05, 0.21), (0.068, 0.29))
    return [Piece("torso", body), *crossing(0.16), fold, *obi(), *wide_sleeves()]


def armour(length: str) -> list[Piece]:
    """Breastplate with a ridge, plated skirt, round shoulder plates, steel arms."""
    plate = both((0, 0.012), (0.04, -0.016, 1), (0.1, 0.0), (0.126, 0.06), (0.12, 0.13), (0.098, 0.186, 1), (0, 0.2))
    gorget = both((0, -0.024), (0.046, -0.03), (0.062, 0.0), (0.05, 0.028), (0, 0.04))
    rim = [seam("torso", (-0.13, 0.168), (0, 0.184), (0.13, 0.168), fill="gold", width=0.014)]
    ridge = [seam("torso", (0, 0.04), (0, 0.17), width=0.007)]
    skirt = both((0, 0.18), (0.1, 0.178, 1), (0.136, 0.276, 1), (0.088, 0.29, 1), (0.044, 0.276, 1), (0, 0.292, 1))
    splits = [seam("torso", (x * 0.8, 0.18), (x, 0.3)) for x in (-0.044, 0.044)]
    shoulder = ((-0.052, 0.03, 1), (-0.05, -0.02), (-0.012, -0.05), (0.036, -0.042), (0.062, 0.0), (0.06, 0.054, 1),
        (0.0, 0.066))
    rivets = [patch("torso", ellipse(x, 0.2, 0.007), "gold", shaded=False) for x in (-0.07, 0.07)]
    edge = seam("upper_r", (-0.06, 0.022), (0.0, 0.052), (0.07, 0.044), fill="gold", layer="arm_r", width=0.012)
    arms = mirror([
        Piece("upper_r", tops.LONG_UPPER, "steel", "arm_r"), Piece("lower_r", tops.LONG_LOWER, "steel", "arm_r"),
        *[seam("lower_r", (-0.05, y), (0.05, y), layer="arm_r", width=0.006) for y in (0.03, 0.06)],
        patch("upper_r", shoulder, "main", "arm_r"), edge,
    ])
    return [Piece("torso", skirt), *splits, patch("torso", plate, "main"), *ridge, *rim, *rivets, patch("torso",
        gorget, "steel"), *arms]


def vest(length: str) -> list[Piece]:
    """Over a long-sleeved white shirt with a tie in the second colour."""
    body = both((0, 0.1), (0.05, 0.0, 1), (0.082, -0.008, 1), (0.1, 0.06), (0.112, 0.09, 1), (0.104, 0.16),
        (0.118, 0.244, 1), (0.03, 0.272, 1), (0, 0.25, 1))
    tie = both((0, 0.036), (0.014, 0.036, 1), (0.01, 0.052, 1), (0.02, 0.098), (0, 0.124, 1))
    middle = [seam("torso", (0, 0.1), (0, 0.26)), *tops.buttons(0.145, 0.185, 0.225)]
    shoulders = [Piece("torso", tops.CREW, "white"), *tops.sleeves("long", "white"), *tops.cuffs("white", 0.026)]
    return [*shoulders, patch("torso", body, "main"), *middle, patch("torso", tie, "tie", shaded=False),
        *tops.collar("white")]


TOPS: dict[str, Callable[[str], list[Piece]]] = {
    "t-shirt": tops.tshirt, "shirt": tops.shirt, "sweater": tops.sweater, "hoodie": tops.hoodie,
        "tank top": tops.tank,
    "jacket": tops.jacket, "sailor top": tops.sailor, "kimono top": kimono_top, "armour": armour, "vest": vest,
}
