"""Tops, on torso, arms and neck; x = 0 is the middle, y = 0 the base of the neck."""
# fmt: off


from minicc.data.dolls.curves import Path, both, ellipse, mirrored
from minicc.data.dolls.pieces import Piece, detail, mirror, patch, seam

HEM = 0.252
SIDE: Path = ((0.1, 0.004), (0.124, 0.05), (0.11, 0.15), (0.124, HEM - 0.006, 1), (0.06, HEM + 0.006),
    (0, HEM + 0.009))
CREW = both((0, 0.022), (0.034, 0.012), (0.048, -0.008, 1), *SIDE)
SHORT_SLEEVE: Path = (
    (-0.03, 0.0), (-0.014, -0.032), (0.022, -0.03), (0.04, 0.0), (0.05, 0.078, 1), (0.0, 0.088), (-0.046, 0.078, 1),
)
LONG_UPPER: Path = (
    (-0.03, 0.0), (-0.014, -0.032), (0.022, -0.03), (0.04, 0.0), (0.043, 0.06), (0.041, 0.115), (0, 0.145),
        (-0.041, 0.115), (-0.038, 0.06),
)
LONG_LOWER: Path = ((-0.041, 0.0), (0, -0.034), (0.041, 0.0), (0.04, 0.05), (0.042, 0.086, 1), (0, 0.094),
    (-0.042, 0.086, 1), (-0.04, 0.05))


def sleeves(length: str, fill: str = "main") -> list[Piece]:
    """Both sleeves, short or long."""
    if length == "short":
        return mirror([Piece("upper_r", SHORT_SLEEVE, fill, "arm_r")])
    return mirror([Piece("upper_r", LONG_UPPER, fill, "arm_r"), Piece("lower_r", LONG_LOWER, fill, "arm_r")])


def cuffs(fill: str = "second", height: float = 0.022) -> list[Piece]:
    """Bands at the ends of long sleeves."""
    y = 0.09
    band = ((-0.046, y - height, 1), (0.046, y - height, 1), (0.046, y + 0.008, 1), (-0.046, y + 0.008, 1))
    line = seam("lower_r", (-0.05, y - height), (0.05, y - height), layer="arm_r", width=0.006)
    return mirror([detail("lower_r", band, fill, "arm_r"), line])


def band(y: float, height: float, fill: str = "second", bone: str = "torso", half: float = 0.15) -> list[Piece]:
    """A horizontal band across a garment, and the line above it."""
    box = ((-half, y, 1), (half, y, 1), (half, y + height, 1), (-half, y + height, 1))
    return [detail(bone, box, fill), seam(bone, (-half, y), (half, y), width=0.006)]


def collar(fill: str = "second") -> list[Piece]:
    """Two pointed leaves."""
    leaf = ((0.0, 0.02, 1), (0.03, -0.02, 1), (0.056, -0.014, 1), (0.062, 0.036, 1), (0.036, 0.044, 1))
    return [patch("torso", p, fill, shaded=False) for p in (leaf, mirrored(leaf))]


def buttons(*ys: float, x: float = 0.0, fill: str = "gold") -> list[Piece]:
    """A row of buttons."""
    return [patch("torso", ellipse(x, y, 0.0085), fill, shaded=False) for y in ys]


def tshirt(length: str) -> list[Piece]:
    """Round neck with a ribbed edge, bands on the sleeves."""
    neck = [seam("torso", (-0.05, 0.0), (-0.036, 0.024), (0, 0.034), (0.036, 0.024), (0.05, 0.0), fill="second",
        width=0.016)]
    trim = mirror([seam("upper_r", (-0.06, 0.073), (0, 0.081), (0.06, 0.073), fill="second", layer="arm_r",
        width=0.013)])
    return [Piece("torso", CREW), *neck, *sleeves(length), *(trim if length == "short" else cuffs("second", 0.012))]


def shirt(length: str) -> list[Piece]:
    """Pointed white collar, button border, a chest pocket."""
    strip = ((-0.018, 0.02, 1), (0.018, 0.02, 1), (0.018, 0.27, 1), (-0.018, 0.27, 1))
    pocket = ((0.036, 0.088, 1), (0.08, 0.088, 1), (0.08, 0.122, 1), (0.058, 0.134, 1), (0.036, 0.122, 1))
    front = [detail("torso", strip, "light"), seam("torso", (0.018, 0.02), (0.018, 0.27)), seam("torso",
        (-0.018, 0.02), (-0.018, 0.27))]
    end = cuffs("white", 0.026) if length == "long" else []
    return [Piece("torso", CREW), *front, patch("torso", pocket, "light", shaded=False),
        *buttons(0.07, 0.12, 0.17, 0.22, fill="white"),
            *collar("white"), *sleeves(length), *end]


def sweater(length: str) -> list[Piece]:
    """Thick: a rolled collar, ribbed hem and cuffs."""
    roll = both((0, -0.026), (0.05, -0.024), (0.06, 0.002), (0.045, 0.024), (0, 0.03))
    body = both((0, 0.0), (0.05, -0.008), (0.106, 0.002), (0.134, 0.05), (0.124, 0.15), (0.13, 0.225),
        (0.12, 0.268, 1), (0, 0.278))
    ribs = [seam("torso", (x, 0.236), (x, 0.28), fill="dark",
        width=0.006) for x in (-0.09, -0.06, -0.03, 0, 0.03, 0.06, 0.09)]
    folds = [seam("torso", (x, -0.022), (x, 0.024), fill="dark", width=0.006) for x in (-0.032, -0.011, 0.011, 0.032)]
    return [Piece("torso", body), *band(0.236, 0.06, "light"), *ribs, patch("torso", roll, "light"),
        *folds, *sleeves("long"), *cuffs("light", 0.028)]


def hoodie(length: str) -> list[Piece]:
    """Hood behind the neck, strings, a belly pocket."""
    hood = both((0, -0.115), (0.1, -0.105), (0.158, -0.055), (0.15, 0.01), (0.1, 0.035), (0, 0.04))
    rim = both((0, 0.04), (0.03, 0.034), (0.07, -0.03, 1), (0.1, -0.02), (0.092, 0.03), (0.05, 0.064), (0, 0.07))
    pocket = both((0, 0.165), (0.056, 0.165, 1), (0.082, 0.226, 1), (0.078, 0.24, 1), (0, 0.242))
    body = both((0, 0.02), (0.05, -0.008), (0.106, 0.002), (0.134, 0.05), (0.122, 0.15), (0.13, 0.23),
        (0.12, 0.266, 1), (0, 0.274))
    strings = [seam("torso", (x, 0.055), (x * 1.1, 0.09), fill="string", width=0.013) for x in (-0.036, 0.036)]
    tips = [patch("torso", ellipse(x, 0.094, 0.007, 0.01), "string", shaded=False) for x in (-0.04, 0.04)]
    return [Piece("torso", hood, "main", "back"), Piece("torso", body), *band(0.252, 0.04, "dark"), patch("torso",
        pocket, "pocket"),
            patch("torso", rim, "inner"), *strings, *tips, *sleeves("long"), *cuffs("dark", 0.022)]


def tank(length: str) -> list[Piece]:
    """No sleeves, broad straps, a deep neck."""
    body = both((0, 0.062), (0.04, 0.048), (0.052, -0.008, 1), (0.086, -0.004, 1), (0.09, 0.05), (0.116, 0.085, 1),
        (0.106, 0.16), (0.122, HEM, 1), (0, HEM + 0.012))
    neck = ((-0.052, -0.006), (-0.042, 0.052), (0, 0.068), (0.042, 0.052), (0.052, -0.006))
    return [Piece("torso", body), seam("torso", *neck, fill="second", width=0.015), *band(0.246, 0.04)]


def jacket(length: str) -> list[Piece]:
    """Open over a white shirt: lapels, pockets, long sleeves."""
    inner = both((0, 0.026), (0.036, 0.012), (0.046, -0.006, 1), (0.09, 0.01), (0.09, 0.24, 1), (0, 0.25))
    panel = ((0.038, -0.012, 1), (0.1, 0.002), (0.132, 0.05), (0.12, 0.15), (0.138, 0.276, 1), (0.08, 0.286),
        (0.046, 0.282, 1), (0.042, 0.15), (0.05, 0.06))
    lapel = ((0.034, -0.016, 1), (0.062, -0.012, 1), (0.094, 0.048, 1), (0.07, 0.058, 1), (0.07, 0.076, 1),
        (0.044, 0.13, 1), (0.046, 0.06))
    pocket = ((0.064, 0.174, 1), (0.108, 0.174, 1), (0.108, 0.192, 1), (0.064, 0.192, 1))
    halves = [patch("torso", p, "main") for p in (panel, mirrored(panel))]
    trims = [patch("torso", q, "second", shaded=False) for p in (lapel, pocket) for q in (p, mirrored(p))]
    placket = [seam("torso", (0, 0.03), (0, 0.26), fill="inner_line"), *buttons(0.08, 0.14, 0.2, fill="steel")]
    return [Piece("torso", inner, "white"), *placket, *halves, *trims, *sleeves("long"), *cuffs("second", 0.02)]


def sailor(length: str) -> list[Piece]:
    """A broad square collar with white lines, and a knotted scarf."""
    flap = both((0, 0.09), (0.04, 0.02, 1), (0.05, -0.014, 1), (0.108, 0.0, 1), (0.112, 0.075, 1), (0.05, 0.104, 1),
        (0, 0.13))
    lines = [seam("torso", (s * 0.094, -0.004), (s * 0.096, 0.066), (s * 0.04, 0.092), (0, 0.112), fill="trim_line",
        width=0.009) for s in (-1, 1)]
    knot = patch("torso", ellipse(0, 0.112, 0.016, 0.014), "ribbon", shaded=False)
    tail = ((0.0, 0.112, 1), (0.044, 0.15, 1), (0.036, 0.186, 1), (0.018, 0.176, 1), (0.004, 0.14))
    ends = [patch("torso", p, "ribbon", shaded=False) for p in (tail, mirrored(tail))]
    end = cuffs("trim", 0.02) if length == "long" else mirror([seam("upper_r", (-0.06, 0.068), (0, 0.076),
        (0.06, 0.068), fill="trim", layer="arm_r", width=0.02)])
    return [Piece("torso", CREW), *band(0.236, 0.05, "trim"), patch("torso", flap, "trim", shaded=False),
        *lines, *ends, knot, *sleeves(length), *end]
