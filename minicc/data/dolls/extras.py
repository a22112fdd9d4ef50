"""Shoes, hats and accessories. Feet: y = 0 is the ankle; head: coordinates from its centre."""
# fmt: off

from collections.abc import Callable

from minicc.data.dolls.curves import Path, both, ellipse
from minicc.data.dolls.head import EYE_X, EYE_Y
from minicc.data.dolls.patterns import star
from minicc.data.dolls.pieces import Piece, detail, mirror, patch, seam

SHOE: Path = ((-0.042, -0.032, 1), (0.0, -0.038), (0.042, -0.032, 1), (0.052, 0.012), (0.05, 0.05, 1), (0, 0.056),
    (-0.05, 0.05, 1), (-0.052, 0.012))
SOLE: Path = ((-0.07, 0.03, 1), (0.07, 0.03, 1), (0.07, 0.07, 1), (-0.07, 0.07, 1))


def sneakers() -> list[Piece]:
    """Low, white soles and laces, a cap over the toes."""
    toes = ellipse(0, 0.034, 0.034, 0.02)
    laces = [seam("foot_r", (-0.022, y), (0.022, y), fill="white", layer="feet", width=0.009) for y in (-0.014, 0.002)]
    return mirror([Piece("foot_r", SHOE, "main", "feet"), detail("foot_r", toes, "second", "feet"), *laces,
        detail("foot_r", SOLE, "white", "feet"),
        seam("foot_r", (-0.06, 0.03), (0.06, 0.03), layer="feet", width=0.006)])


def boots() -> list[Piece]:
    """To mid-calf, a turned-down edge, dark soles."""
    shaft = ((-0.046, 0.112, 1), (0.046, 0.112, 1), (0.042, 0.17), (0.042, 0.215, 1), (-0.042, 0.215, 1),
        (-0.042, 0.17))
    edge = ((-0.054, 0.104, 1), (0.054, 0.104, 1), (0.051, 0.136, 1), (-0.051, 0.136, 1))
    buckle = seam("foot_r", (-0.06, -0.012), (0.06, -0.012), fill="dark", layer="feet", width=0.011)
    return mirror([Piece("leg_r", shaft, "main", "feet"), Piece("foot_r", SHOE, "main", "feet"), buckle,
        detail("foot_r", tuple((x, y + 0.008, 1) for x, y, _ in SOLE), "dark", "feet"),
        patch("leg_r", edge, "second", "feet", shaded=False)])


def sandals() -> list[Piece]:
    """A sole and three straps on the bare foot."""
    sole = ((-0.046, 0.026, 1), (0.046, 0.026, 1), (0.05, 0.05), (0, 0.058), (-0.05, 0.05))
    straps = (((-0.046, 0.014, 1), (0.046, 0.014, 1), (0.048, 0.034, 1), (-0.048, 0.034, 1)),
        ((-0.04, -0.026, 1), (0.04, -0.026, 1), (0.042, -0.008, 1), (-0.042, -0.008, 1)),
        ((-0.01, -0.02, 1), (0.01, -0.02, 1), (0.012, 0.03, 1), (-0.012, 0.03, 1)))
    return mirror([Piece("foot_r", sole, "leather", "feet"),
        *[patch("foot_r", path, "main", "feet", shaded=False) for path in reversed(straps)]])


def pumps() -> list[Piece]:
    """Cut low, with a bow."""
    shape = ((-0.046, -0.008, 1), (0, 0.016), (0.046, -0.008, 1), (0.052, 0.024), (0.042, 0.048), (0, 0.056),
        (-0.042, 0.048), (-0.052, 0.024))
    bow = [patch("foot_r", ellipse(x, 0.014, 0.014, 0.01), "second", "feet", shaded=False) for x in (-0.012, 0.012)]
    return mirror([Piece("foot_r", shape, "main", "feet"), *bow])


def cap() -> list[Piece]:
    """A baseball cap: dome, button, peak."""
    dome = both((0, -0.27), (0.11, -0.252), (0.19, -0.18), (0.216, -0.07, 1), (0.1, -0.1), (0, -0.106))
    peak = both((0, -0.132), (0.1, -0.124), (0.18, -0.084, 1), (0.13, -0.062), (0, -0.05))
    lines = [seam("head", (0, -0.27), (x * 0.8, -0.2), (x, -0.1), layer="hat", width=0.007) for x in (-0.1, 0.1)]
    return [Piece("head", dome, "main", "hat"), *lines, patch("head", ellipse(0, -0.27, 0.018, 0.011), "second", "hat",
        shaded=False), patch("head", peak, "second", "hat")]


def beanie() -> list[Piece]:
    """Knitted: a ribbed band and a bobble."""
    dome = both((0, -0.25), (0.11, -0.236), (0.19, -0.17), (0.212, -0.1, 1), (0, -0.1))
    edge = both((0, -0.136), (0.12, -0.13), (0.208, -0.104, 1), (0.214, -0.05, 1), (0.12, -0.074), (0, -0.08))
    ribs = [seam("head", (x, -0.132), (x * 1.04, -0.07), fill="dark", layer="hat", width=0.007)
        for x in (-0.17, -0.13, -0.09, -0.045, 0.0, 0.045, 0.09, 0.13, 0.17)]
    return [patch("head", ellipse(0, -0.252, 0.036, 0.026), "second", "hat"),
        Piece("head", dome, "main", "hat", base=False),
        patch("head", edge, "light", "hat"), *ribs]


def sun_hat() -> list[Piece]:
    """Straw-wide brim, a ribbon around the crown."""
    brim = both((0, -0.172), (0.17, -0.155), (0.3, -0.09), (0.28, -0.05), (0.15, -0.082), (0, -0.092))
    crown = both((0, -0.272), (0.1, -0.262), (0.16, -0.2), (0.176, -0.12, 1), (0.09, -0.106), (0, -0.102))
    ribbon = ((-0.2, -0.14), (-0.09, -0.122), (0, -0.118), (0.09, -0.122), (0.2, -0.14))
    return [Piece("head", brim, "main", "hat"), patch("head", crown, "main", "hat"),
        seam("head", *ribbon, fill="second", layer="hat", width=0.036)]


def wizard_hat() -> list[Piece]:
    """Pointed and bent, stars, a band with a buckle."""
    cone = ((-0.165, -0.1, 1), (-0.11, -0.18), (-0.05, -0.25), (0.04, -0.276), (0.13, -0.262), (0.19, -0.21, 1),
        (0.12, -0.214), (0.134, -0.17), (0.165, -0.1, 1), (0, -0.088))
    brim = both((0, -0.14), (0.16, -0.13), (0.272, -0.082), (0.26, -0.052), (0.14, -0.078), (0, -0.086))
    stars = [detail("head", tuple((x, y, 1) for x, y in star(*at)), "gold", "hat")
        for at in ((-0.05, -0.2, 0.028), (0.06, -0.225, 0.022))]
    band = ((-0.2, -0.142), (-0.09, -0.13), (0, -0.127), (0.09, -0.13), (0.2, -0.142))
    buckle = both((0, -0.148), (0.024, -0.148, 1), (0.024, -0.108, 1), (0, -0.108))
    return [Piece("head", brim, "main", "hat"), patch("head", cone, "main", "hat"), *stars,
        seam("head", *band, fill="second", layer="hat", width=0.028),
        patch("head", buckle, "gold", "hat", shaded=False)]


def crown() -> list[Piece]:
    """Five points with golden balls, three jewels."""
    shape = both((0, -0.256, 1), (0.034, -0.204, 1), (0.084, -0.25, 1), (0.104, -0.196, 1), (0.166, -0.222, 1),
        (0.146, -0.13, 1), (0.07, -0.118), (0, -0.114))
    balls = [patch("head", ellipse(x, y, 0.013), "gold", "hat", shaded=False)
        for x, y in ((0, -0.258), (0.084, -0.252), (-0.084, -0.252), (0.166, -0.224), (-0.166, -0.224))]
    jewels = [detail("head", ellipse(x, y, 0.016), "second", "hat")
        for x, y in ((0, -0.162), (0.08, -0.166), (-0.08, -0.166))]
    edge = seam("head", (-0.16, -0.126), (0, -0.108), (0.16, -0.126), fill="gold", layer="hat", width=0.018)
    return [Piece("head", shape, "main", "hat"), edge, *jewels, *balls]


def glasses() -> list[Piece]:
    """Two round rims and a bridge."""
    rims = [ellipse(x, EYE_Y, 0.062, 0.066) for x in (-EYE_X, EYE_X)]
    bridge = ((-0.018, 0.04), (0, 0.032), (0.018, 0.04))
    return [wire(path, fill, width, closed=path is not bridge)
        for fill, width in (("ink", 0.026), ("main", 0.013)) for path in (*rims, bridge)]


def wire(path: Path, fill: str, width: float, closed: bool) -> Piece:
    """A bent wire in front of the face."""
    return Piece("head", path, fill, "face", outline=False, width=width, closed=closed, shaded=False)


def bow() -> list[Piece]:
    """A large ribbon on one side of the head."""
    x, y = 0.11, -0.2
    wing = ((0.0, 0.0), (0.05, -0.052), (0.096, -0.05, 1), (0.09, 0.0), (0.096, 0.05, 1), (0.05, 0.046))
    sides = [tuple((x + s * p[0], y + p[1], *p[2:]) for p in wing) for s in (-1, 1)]
    folds = [seam("head", (x, y), (x + s * 0.05, y + 0.006), layer="hat", width=0.007) for s in (-1, 1)]
    return [*[Piece("head", side, "main", "hat") for side in sides], *folds,
        patch("head", ellipse(x, y, 0.024, 0.028), "second", "hat")]


def scarf() -> list[Piece]:
    """Wound round the neck, one end hanging down, fringed."""
    loop = both((0, -0.042), (0.076, -0.042), (0.1, -0.008), (0.082, 0.034), (0, 0.046))
    end = ((0.024, 0.02, 1), (0.082, 0.014, 1), (0.1, 0.1), (0.1, 0.15, 1), (0.044, 0.156, 1), (0.038, 0.09))
    stripes = [seam("torso", (0.02, y), (0.13, y - 0.006), fill="second", width=0.016) for y in (0.09, 0.128)]
    folds = [seam("torso", (-0.09, 0.0), (0, 0.016), (0.09, 0.0), width=0.007)]
    return [Piece("torso", end), *stripes, patch("torso", loop, "main"), *folds]


SHOES: dict[str, Callable[[], list[Piece]]] = {
    "sneakers": sneakers, "boots": boots, "sandals": sandals, "pumps": pumps,
}
HATS: dict[str, Callable[[], list[Piece]]] = {
    "cap": cap, "beanie": beanie, "sun hat": sun_hat, "wizard hat": wizard_hat, "crown": crown,
}
ACCESSORIES: dict[str, Callable[[], list[Piece]]] = {"glasses": glasses, "bow": bow, "scarf": scarf}
