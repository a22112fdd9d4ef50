"""Bottoms, on hips and legs. A leg's x = 0 is its middle, y = 0 the hip joint; the ankle lies at y = 0.205."""
# fmt: off

from collections.abc import Callable

from minicc.data.dolls.curves import Path, both
from minicc.data.dolls.pieces import Piece, detail, mirror, seam

HIPS = both((0, 0.2), (0.1, 0.2, 1), (0.112, 0.235), (0.113, 0.27, 1), (0.05, 0.298), (0, 0.3))


def leg(end: float, top: float = 0.054, bottom: float = 0.05) -> Path:
    """A trouser leg down to `end`."""
    return ((-top - 0.002, -0.03, 1), (top, -0.03, 1), (top, 0.02), ((top + bottom) / 2, end / 2), (bottom, end, 1),
        (0, end + 0.007),
            (-bottom, end, 1), (-(top + bottom) / 2, end / 2), (-top, 0.02))


def both_legs(end: float, top: float = 0.054, bottom: float = 0.05, fill: str = "main") -> list[Piece]:
    """Hips and two legs."""
    return [Piece("torso", HIPS, fill, "legs"), *mirror([Piece("leg_r", leg(end, top, bottom), fill, "legs")])]


def waist(fill: str = "dark") -> list[Piece]:
    """The waistband and the line between the legs."""
    box = ((-0.13, 0.19, 1), (0.13, 0.19, 1), (0.13, 0.222, 1), (-0.13, 0.222, 1))
    return [detail("torso", box, fill, "legs"), seam("torso", (0, 0.25), (0, 0.31), layer="legs"),
            seam("torso", (0, 0.255), (-0.022, 0.262), (-0.03, 0.275), layer="legs", width=0.006)]


def hem(y: float, fill: str, height: float = 0.03) -> list[Piece]:
    """Turned-up ends of the legs."""
    box = ((-0.08, y - height, 1), (0.08, y - height, 1), (0.08, y + 0.03, 1), (-0.08, y + 0.03, 1))
    line = seam("leg_r", (-0.08, y - height), (0.08, y - height), layer="legs", width=0.006)
    return mirror([detail("leg_r", box, fill, "legs"), line])


def trousers(length: str) -> list[Piece]:
    """Wide, with a crease."""
    crease = mirror([seam("leg_r", (0.007, 0.112), (0.008, 0.2), layer="legs", width=0.006)])
    return [*both_legs(0.208, 0.056, 0.056), *waist(), *crease]


def jeans(length: str) -> list[Piece]:
    """Pockets, yellow seams, light turn-ups."""
    pocket = seam("leg_r", (0.014, -0.03), (0.02, 0.008), (0.06, 0.014), fill="gold", layer="legs", width=0.008)
    side = seam("leg_r", (0.036, 0.02), (0.034, 0.18), fill="gold", layer="legs", width=0.007)
    knee = seam("leg_r", (-0.03, 0.1), (0, 0.106), (0.02, 0.1), layer="legs", width=0.006)
    return [*both_legs(0.2, 0.055, 0.047), *waist(), *mirror([pocket, side, knee]), *hem(0.2, "light", 0.032)]


def shorts(length: str) -> list[Piece]:
    """To the knee, wide, with a band."""
    return [*both_legs(0.12, 0.057, 0.066), *waist(), *hem(0.12, "second", 0.018)]


def leggings(length: str) -> list[Piece]:
    """Skin-tight, to the ankle, with a stripe down the side."""
    stripe = ((0.02, -0.04, 1), (0.036, -0.04, 1), (0.03, 0.22, 1), (0.016, 0.22, 1))
    return [*both_legs(0.2, 0.051, 0.039), *waist("main"), *mirror([detail("leg_r", stripe, "second", "legs")])]


def skirt(length: str) -> list[Piece]:
    """A bell of cloth with folds, and a band along the hem."""
    end, out = (0.442, 0.184) if length == "long" else (0.37, 0.174)
    shape = both((0, 0.2), (0.1, 0.2, 1), (0.13, 0.25), (out, end - 0.012, 1), (out * 0.6, end + 0.006),
        (0, end + 0.014))
    folds = [seam("torso", (x * 0.7, 0.27), (x, end - 0.01), layer="legs") for x in (-0.12, -0.055, 0.125)]
    edge = ((-out - 0.02, end - 0.034), (-out * 0.6, end - 0.016), (0, end - 0.008), (out * 0.6, end - 0.016),
        (out + 0.02, end - 0.034))
    return [Piece("torso", shape, "main", "legs"), *folds, seam("torso", *edge, fill="second", layer="legs",
        width=0.014)]


def pleated(length: str) -> list[Piece]:
    """Knife pleats: a zigzag hem, a shadow along every second edge."""
    end = 0.368
    xs = (0.0, 0.036, 0.072, 0.108, 0.144, 0.176)
    right = [(x, end - 0.02 * (x / 0.176) + (0.014 if i % 2 else -0.004), 1) for i, x in enumerate(xs)]
    shape = both((0, 0.2), (0.1, 0.2, 1), (0.122, 0.24), *reversed(right))
    pleats = []
    for i in range(-4, 5, 2):
        a = i * 0.036
        pleats.append(detail("torso", ((a * 0.62, 0.222, 1), (a + 0.014, end + 0.02, 1), (a, end + 0.02, 1)),
            "dark", "legs"))
        pleats.append(seam("torso", (a * 0.62, 0.222), (a, end + 0.02), layer="legs", width=0.006))
    return [Piece("torso", shape, "main", "legs"), *pleats, *waist("second")[:1]]


BOTTOMS: dict[str, Callable[[str], list[Piece]]] = {
    "trousers": trousers, "jeans": jeans, "shorts": shorts, "skirt": skirt, "pleated skirt": pleated,
        "leggings": leggings,
}
