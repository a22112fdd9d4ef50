"""The head: face, ears, eyes, brows, mouth, blush. Coordinates from the head's centre."""

from minicc.data.dolls.curves import Path, both, ellipse, mirrored, moved
from minicc.data.dolls.pieces import Piece, detail, patch, seam

FACE = both((0, -0.175), (0.11, -0.15), (0.168, -0.06), (0.172, 0.03), (0.15, 0.1), (0.085, 0.165), (0, 0.186))
EXPRESSIONS = ("smiling", "laughing", "calm", "surprised", "winking", "grumpy")
EYE_X, EYE_Y = 0.078, 0.048
ALMOND = (
    (-0.036, 0.0),
    (-0.026, -0.045),
    (0.004, -0.058),
    (0.032, -0.042),
    (0.038, 0.006),
    (0.022, 0.046),
    (-0.004, 0.052),
    (-0.028, 0.04),
)
LASH = (
    (-0.046, -0.016),
    (-0.034, -0.052),
    (0.002, -0.068),
    (0.036, -0.052),
    (0.056, -0.024),
    (0.042, -0.022),
    (0.03, -0.036),
    (0.002, -0.048),
    (-0.026, -0.038),
)


def head() -> list[Piece]:
    """Face and ears, without features."""
    ear = ellipse(0.172, 0.04, 0.026, 0.036)
    return [
        Piece("head", ear, "skin", "head"),
        Piece("head", mirrored(ear), "skin", "head"),
        Piece("head", FACE, "skin", "head"),
        detail("head", ellipse(0.175, 0.042, 0.012, 0.02), "blush", "head"),
        detail("head", ellipse(-0.175, 0.042, 0.012, 0.02), "blush", "head"),
    ]


def face(expression: str) -> list[Piece]:
    """Eyes, brows, nose, mouth and blush."""
    blush = [detail("head", ellipse(x, 0.106, 0.031, 0.017), "blush", "head") for x in (-0.112, 0.112)]
    nose = seam("head", (-0.007, 0.098), (0.007, 0.099), fill="fold", layer="head", width=0.009)
    eyes = [*left_eye(expression), *right_eye(expression)]
    return [*blush, *eyes, *brows(expression), nose, *mouth(expression)]


def left_eye(expression: str) -> list[Piece]:
    """The eye on the picture's left."""
    if expression == "laughing":
        return [arc(-EYE_X, up=True)]
    return open_eye(-1, expression)


def right_eye(expression: str) -> list[Piece]:
    """The eye on the picture's right."""
    if expression in ("laughing", "winking"):
        return [arc(EYE_X, up=True)]
    return open_eye(1, expression)


def arc(x: float, up: bool) -> Piece:
    """A closed eye."""
    bow = -0.034 if up else 0.03
    return seam(
        "head",
        (x - 0.044, EYE_Y + 0.014),
        (x, EYE_Y + bow),
        (x + 0.044, EYE_Y + 0.014),
        fill="lash",
        layer="head",
        width=0.018,
    )


def placed(path: Path, side: int, dy: float = 0) -> Path:
    """A shape drawn for the eye on the right, moved to its place; mirrored for the left."""
    return moved(path if side > 0 else mirrored(path), side * EYE_X, EYE_Y + dy)


def open_eye(side: int, expression: str) -> list[Piece]:
    """White, iris with a darker upper half, pupil, two highlights (light from the same side in both), lashes."""
    x, y = side * EYE_X, EYE_Y
    wide = 1.12 if expression == "surprised" else 1.0
    drop = 0.008 if expression == "grumpy" else 0.0
    small = 0.8 if expression == "surprised" else 1.0
    white = tuple((a, b * wide) for a, b in ALMOND)
    lash = tuple((a, b * wide + drop) for a, b in LASH)
    tilt = side * -0.004
    return [
        detail("head", placed(white, side), "white", "head"),
        detail("head", ellipse(x + tilt, y + 0.002, 0.029 * small, 0.047 * small), "iris_dark", "head"),
        detail("head", ellipse(x + tilt, y + 0.017, 0.023 * small, 0.028 * small), "iris", "head"),
        detail("head", ellipse(x + tilt, y + 0.003, 0.0125 * small, 0.022 * small), "lash", "head"),
        detail("head", ellipse(x + tilt, y + 0.036 * small, 0.013, 0.008), "iris_light", "head"),
        detail("head", placed(lash, side), "lash", "head"),
        detail("head", ellipse(x - 0.011, y - 0.02, 0.0125, 0.0155), "white", "head"),
        detail("head", ellipse(x + 0.013, y + 0.024, 0.0065), "white", "head"),
    ]


BROWS = {"surprised": (-0.092, -0.104), "grumpy": (-0.048, -0.078), "calm": (-0.077, -0.074)}  # height: inner, outer


def brows(expression: str) -> list[Piece]:
    """Two short lines above the eyes."""
    inner, outer = BROWS.get(expression, (-0.082, -0.076))
    middle = (inner + outer) / 2 - 0.01
    line = ((0.048, inner + EYE_Y), (0.08, middle + EYE_Y), (0.112, outer + EYE_Y))
    return [seam("head", *path, fill="brow", layer="head", width=0.0125) for path in (line, mirrored(line))]


def mouth(expression: str) -> list[Piece]:
    """A mouth that says how the doll feels."""
    y = 0.127
    if expression == "laughing":
        shape = both((0, y - 0.008), (0.04, y - 0.01, 1), (0.028, y + 0.024), (0, y + 0.034))
        return [
            patch("head", shape, "mouth", "head", shaded=False),
            detail("head", ellipse(0, y + 0.024, 0.018, 0.01), "tongue", "head"),
        ]
    if expression == "surprised":
        return [patch("head", ellipse(0, y + 0.008, 0.013, 0.016), "mouth", "head", shaded=False)]
    if expression == "calm":
        return [
            seam("head", (-0.018, y + 0.004), (0, y + 0.007), (0.018, y + 0.004), fill="lash", layer="head", width=0.01)
        ]
    if expression == "grumpy":
        return [
            seam(
                "head", (-0.024, y + 0.016), (0, y + 0.004), (0.024, y + 0.016), fill="lash", layer="head", width=0.011
            )
        ]
    return [
        seam("head", (-0.034, y - 0.004), (0, y + 0.015), (0.034, y - 0.004), fill="lash", layer="head", width=0.011)
    ]
