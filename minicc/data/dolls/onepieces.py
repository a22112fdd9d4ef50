"""One-pieces: dress, kimono, overalls, robe, jumpsuit."""
# fmt: off

from collections.abc import Callable

from minicc.data.dolls import bottoms, costumes, tops
from minicc.data.dolls.curves import both, ellipse, mirrored
from minicc.data.dolls.pieces import Piece, detail, mirror, patch, seam


def dress(length: str) -> list[Piece]:
    """Puffed sleeves, a waist with a ribbon, a wide skirt; long: to the ankles."""
    end, out = (0.44, 0.196) if length == "long" else (0.35, 0.186)
    shape = both((0, 0.026), (0.036, 0.014), (0.05, -0.008, 1), (0.1, 0.004), (0.12, 0.05), (0.096, 0.155),
        (0.13, 0.22), (out, end - 0.014, 1),
                 (out * 0.6, end + 0.006), (0, end + 0.014))
    puff = ((-0.036, -0.01), (-0.014, -0.038), (0.026, -0.036), (0.058, 0.01), (0.05, 0.056), (0.0, 0.066),
        (-0.05, 0.05))
    folds = [seam("torso", (x * 0.55, 0.21), (x, end - 0.012)) for x in (-0.125, -0.075, 0.075, 0.125)]
    edge = ((-out - 0.02, end - 0.036), (-out * 0.6, end - 0.017), (0, end - 0.009), (out * 0.6, end - 0.017),
        (out + 0.02, end - 0.036))
    sash = both((0, 0.148), (0.12, 0.14, 1), (0.12, 0.168, 1), (0, 0.178))
    bow = ((0.0, 0.163), (0.036, 0.136), (0.048, 0.16), (0.036, 0.188))
    neck = seam("torso", (-0.052, -0.01), (-0.038, 0.02), (0, 0.032), (0.038, 0.02), (0.052, -0.01), fill="second",
        width=0.014)
    return [Piece("torso", shape), *folds, seam("torso", *edge, fill="second", width=0.016), neck, detail("torso",
        sash, "second"),
            *[patch("torso", p, "second", shaded=False) for p in (bow, mirrored(bow))], patch("torso",
                ellipse(0, 0.163, 0.011), "second", shaded=False),
            *mirror([Piece("upper_r", puff, "main", "arm_r")])]


def kimono(length: str) -> list[Piece]:
    """To the ankles: crossed collar, obi, wide sleeves, the overlapping front edge."""
    body = both((0, -0.004), (0.05, -0.014, 1), (0.1, 0.002), (0.126, 0.05), (0.112, 0.15), (0.122, 0.25),
        (0.128, 0.435, 1), (0, 0.442))
    edge = ((0.02, 0.2, 1), (0.038, 0.2, 1), (0.07, 0.45, 1), (0.036, 0.45, 1))
    line = [seam("torso", (0.02, 0.2), (0.036, 0.45)), seam("torso", (0.038, 0.2), (0.07, 0.45))]
    lower = [detail("torso", edge, "second"), *line]
    return [Piece("torso", body), *lower, *costumes.crossing(0.16), *costumes.obi(), *costumes.wide_sleeves()]


def overalls(length: str) -> list[Piece]:
    """Bib, straps with buttons, a pocket; a white shirt below."""
    shirt = [Piece("torso", tops.CREW, "white"), *tops.sleeves("short", "white")]
    end = 0.105 if length == "short" else 0.2
    legs = [*bottoms.both_legs(end, 0.057, 0.06 if length == "short" else 0.052), bottoms.waist("main")[1],
        *bottoms.hem(end, "light", 0.026)]
    bib = both((0, 0.082), (0.066, 0.082, 1), (0.078, 0.14), (0.117, 0.176, 1), (0.117, 0.236), (0.116, 0.262, 1),
        (0, 0.268))
    strap = ((0.066, -0.014, 1), (0.088, -0.008, 1), (0.07, 0.1, 1), (0.046, 0.1, 1))
    pocket = both((0, 0.116), (0.04, 0.116, 1), (0.038, 0.152), (0, 0.168))
    straps = [patch("torso", p, "main", shaded=False) for p in (strap, mirrored(strap))]
    knobs = [patch("torso", ellipse(x, 0.094, 0.012), "gold", shaded=False) for x in (-0.057, 0.057)]
    return [*shirt, *legs, *straps, patch("torso", bib, "main"), patch("torso", pocket, "pocket", shaded=False),
        *knobs]


def robe(length: str) -> list[Piece]:
    """A wizard's: to the floor, wide sleeves, a broad border down the front, a rope belt, a pointed collar."""
    body = both((0, 0.0), (0.05, -0.014, 1), (0.104, 0.002), (0.13, 0.05), (0.116, 0.15), (0.15, 0.3),
        (0.186, 0.448, 1), (0.09, 0.462), (0, 0.464))
    border = both((0, 0.0), (0.022, 0.0, 1), (0.022, 0.2, 1), (0.034, 0.48, 1), (0, 0.48))
    sides = [seam("torso", (s * 0.022, 0.02), (s * 0.022, 0.2), (s * 0.034, 0.48)) for s in (-1, 1)]
    leaf = ((0.0, 0.056, 1), (0.036, -0.03, 1), (0.066, -0.024, 1), (0.1, 0.046, 1), (0.05, 0.05, 1))
    folds = [seam("torso", (x * 0.66, 0.23), (x, 0.45)) for x in (-0.13, 0.08, 0.13)]
    rope = [seam("torso", (-0.14, 0.182), (0, 0.196), (0.14, 0.182), fill="gold", width=0.016)]
    tassel = [seam("torso", (0.04, 0.19), (0.05, 0.24), (0.046, 0.28), fill="gold", width=0.012), patch("torso",
        ellipse(0.046, 0.286, 0.012, 0.016), "gold", shaded=False)]
    return [Piece("torso", body), detail("torso", border, "second"), *sides, *folds, *rope, *tassel,
            *[patch("torso", p, "second", shaded=False) for p in (leaf, mirrored(leaf))], *costumes.wide_sleeves()]


def jumpsuit(length: str) -> list[Piece]:
    """A mechanic's: zip, belt with a buckle, chest pockets, long sleeves and legs."""
    zip_line = [seam("torso", (0, 0.02), (0, 0.29), fill="steel", width=0.013)]
    pocket = ((0.034, 0.08, 1), (0.084, 0.08, 1), (0.084, 0.12, 1), (0.034, 0.12, 1))
    belt = ((-0.14, 0.176, 1), (0.14, 0.176, 1), (0.14, 0.204, 1), (-0.14, 0.204, 1))
    buckle = both((0, 0.172), (0.02, 0.172, 1), (0.02, 0.208, 1), (0, 0.208))
    body = both((0, 0.022), (0.034, 0.012), (0.048, -0.008, 1), (0.1, 0.004), (0.126, 0.05), (0.108, 0.16),
        (0.118, 0.25), (0.114, 0.29, 1), (0.05, 0.3), (0, 0.302))
    legs = [p for p in bottoms.both_legs(0.2, 0.057, 0.052) if p.bone != "torso"]
    return [*legs, *bottoms.hem(0.2, "second", 0.022), Piece("torso", body), *zip_line,
            *[patch("torso", p, "second", shaded=False) for p in (pocket, mirrored(pocket))], detail("torso",
                belt, "leather"),
            patch("torso", buckle, "gold", shaded=False), *tops.collar("second"), *tops.sleeves("long"),
                *tops.cuffs("second", 0.022)]


ONEPIECES: dict[str, Callable[[str], list[Piece]]] = {
    "dress": dress, "kimono": kimono, "overalls": overalls, "robe": robe, "jumpsuit": jumpsuit,
}
