"""Hair: what hangs behind the body, and what lies in front of face and clothes. Coordinates from the head's centre."""
# fmt: off

from collections.abc import Callable

from minicc.data.dolls.curves import Path, both, mirrored
from minicc.data.dolls.pieces import Piece, detail, seam

# The skull cap's outer edge, right half from the top; every style's fringe starts from it.
CAP_OUT = ((0, -0.222), (0.1, -0.205), (0.175, -0.135), (0.203, -0.03))
FRINGES: dict[str, Path] = {
    "swept": (
        (0, -0.222), (0.1, -0.205), (0.175, -0.135), (0.203, -0.03), (0.196, 0.05), (0.178, 0.088, 1), (0.166, 0.01),
        (0.15, -0.052), (0.09, -0.094, 1), (0.1, -0.05, 1), (0.03, -0.086), (-0.03, -0.14, 1), (-0.06, -0.066),
        (-0.132, -0.012, 1), (-0.152, -0.05), (-0.166, 0.01), (-0.178, 0.088, 1), (-0.196, 0.05), (-0.203, -0.03),
        (-0.175, -0.135), (-0.1, -0.205),
    ),
    "straight": (
        (0, -0.222), (0.1, -0.205), (0.175, -0.135), (0.203, -0.03), (0.198, 0.07), (0.186, 0.135, 1),
            (0.152, 0.125, 1),
        (0.155, 0.04), (0.142, -0.026, 1), (0.1, -0.018), (0.09, -0.036, 1), (0.05, -0.02), (0, -0.018),
            (-0.05, -0.02),
        (-0.09, -0.036, 1), (-0.1, -0.018), (-0.142, -0.026, 1), (-0.155, 0.04), (-0.152, 0.125, 1),
            (-0.186, 0.135, 1),
        (-0.198, 0.07), (-0.203, -0.03), (-0.175, -0.135), (-0.1, -0.205),
    ),
    "parted": (
        (0, -0.222), (0.1, -0.205), (0.175, -0.135), (0.203, -0.03), (0.204, 0.06), (0.19, 0.14, 1), (0.17, 0.08),
        (0.152, 0.0), (0.09, -0.08), (0.012, -0.15, 1), (-0.06, -0.085), (-0.14, -0.02), (-0.165, 0.07),
        (-0.19, 0.14, 1), (-0.204, 0.06), (-0.203, -0.03), (-0.175, -0.135), (-0.1, -0.205),
    ),
    "spikes": (
        (0.02, -0.245, 1), (0.075, -0.21), (0.135, -0.235, 1), (0.15, -0.18), (0.215, -0.16, 1), (0.196, -0.1),
        (0.24, -0.04, 1), (0.2, -0.01), (0.214, 0.06, 1), (0.176, 0.05), (0.168, -0.02), (0.145, -0.06, 1),
        (0.12, -0.01, 1), (0.09, -0.07), (0.06, -0.09, 1), (0.035, -0.015, 1), (0.0, -0.08), (-0.03, -0.1, 1),
        (-0.06, -0.02, 1), (-0.09, -0.06), (-0.115, -0.085, 1), (-0.142, -0.01, 1), (-0.168, -0.02), (-0.176, 0.05),
        (-0.214, 0.06, 1), (-0.2, -0.01), (-0.24, -0.04, 1), (-0.196, -0.1), (-0.215, -0.16, 1), (-0.15, -0.18),
        (-0.135, -0.235, 1), (-0.06, -0.21),
    ),
    "curls": (
        (0, -0.235), (0.06, -0.246), (0.1, -0.218, 1), (0.16, -0.214), (0.186, -0.16, 1), (0.228, -0.12),
        (0.216, -0.06, 1), (0.242, -0.01), (0.216, 0.04, 1), (0.212, 0.082), (0.176, 0.07, 1), (0.165, 0.0),
        (0.15, -0.05, 1), (0.12, -0.03), (0.095, -0.062, 1), (0.05, -0.036), (0.03, -0.074, 1), (-0.015, -0.05),
        (-0.04, -0.084, 1), (-0.085, -0.042), (-0.105, -0.07, 1), (-0.14, -0.03), (-0.16, -0.04, 1), (-0.165, 0.0),
        (-0.176, 0.07, 1), (-0.212, 0.082), (-0.216, 0.04, 1), (-0.242, -0.01), (-0.216, -0.06, 1), (-0.228, -0.12),
        (-0.186, -0.16, 1), (-0.16, -0.214), (-0.1, -0.218, 1), (-0.06, -0.246),
    ),
}
SHINE = (
    (-0.15, -0.1, 1), (-0.13, -0.145), (-0.06, -0.178), (0.02, -0.178, 1), (0.0, -0.15, 1), (-0.02, -0.16, 1),
    (-0.04, -0.135, 1), (-0.07, -0.15, 1), (-0.09, -0.118, 1), (-0.11, -0.128, 1),
)


def fringe(kind: str) -> list[Piece]:
    """The hair on the skull and over the forehead, with a highlight."""
    return [Piece("head", FRINGES[kind], "hair", "hair"), detail("head", SHINE, "hair_light", "hair")]


def behind(*right: tuple[float, ...]) -> list[Piece]:
    """A mass of hair behind head and body."""
    return [Piece("head", both(*right), "hair_back", "behind")]


def strands(*lines: Path) -> list[Piece]:
    """Dark lines on the hair in front, and their mirror images."""
    pairs = [path for line in lines for path in (line, mirrored(line))]
    return [seam("head", *path, fill="ink", layer="hair", width=0.007) for path in pairs]


def locks(path: Path) -> list[Piece]:
    """Two locks that fall before the ears, over the clothes."""
    return [Piece("head", p, "hair", "hair") for p in (path, mirrored(path))]


def short() -> list[Piece]:
    """Short and neat, swept to a side."""
    return behind((0, -0.2), (0.16, -0.15), (0.198, -0.02), (0.185, 0.09), (0.12, 0.15), (0, 0.16)) + fringe("swept")


def bob() -> list[Piece]:
    """To the chin, with a straight fringe."""
    back = behind((0, -0.2), (0.17, -0.15), (0.215, 0.0), (0.222, 0.12), (0.2, 0.2), (0.12, 0.206), (0, 0.19))
    side = ((0.14, -0.1), (0.196, -0.05), (0.214, 0.06), (0.212, 0.17), (0.17, 0.196), (0.146, 0.18, 1),
        (0.162, 0.08))
    return back + locks(side) + fringe("straight")


def long() -> list[Piece]:
    """To the hips, parted in the middle, two locks over the shoulders."""
    back = behind(
        (0, -0.2), (0.17, -0.15), (0.22, 0.0), (0.235, 0.18), (0.235, 0.34), (0.2, 0.44), (0.16, 0.415, 1),
            (0.1, 0.45),
        (0.05, 0.42, 1), (0, 0.445),
    )
    side = (
        (0.15, -0.08),
        (0.198, -0.02),
        (0.206, 0.12),
        (0.19, 0.27),
        (0.158, 0.345, 1),
        (0.134, 0.27),
        (0.15, 0.16),
        (0.166, 0.06),
    )
    line = ((0.184, 0.04), (0.184, 0.16), (0.166, 0.27))
    return back + locks(side) + fringe("parted") + strands(line)


def ponytail() -> list[Piece]:
    """Tied high on one side."""
    tail = (
        (0.11, -0.2), (0.19, -0.235), (0.268, -0.17), (0.296, -0.03), (0.276, 0.12), (0.226, 0.225, 1), (0.224, 0.14),
        (0.196, 0.18, 1), (0.2, 0.05), (0.17, -0.08),
    )
    tie = ((0.115, -0.2), (0.15, -0.225), (0.178, -0.19), (0.18, -0.15), (0.15, -0.14))
    back = behind((0, -0.2), (0.16, -0.15), (0.196, -0.02), (0.18, 0.09), (0.1, 0.14), (0, 0.15))
    tied = [Piece("head", tail, "hair", "behind"), Piece("head", tie, "tie", "behind", base=False)]
    return back + tied + fringe("swept")


def twintails() -> list[Piece]:
    """Two bunches, one on each side, in front of the arms."""
    tail = (
        (0.185, -0.125), (0.245, -0.14), (0.292, -0.06), (0.3, 0.08), (0.278, 0.23), (0.236, 0.315, 1), (0.226, 0.22),
        (0.206, 0.26, 1), (0.206, 0.1), (0.196, 0.0),
    )
    tie = ((0.172, -0.14), (0.2, -0.158), (0.222, -0.13), (0.216, -0.09), (0.19, -0.084))
    back = behind((0, -0.2), (0.16, -0.15), (0.196, -0.02), (0.18, 0.09), (0.1, 0.14), (0, 0.15))
    tails = [Piece("head", p, "hair", "behind") for p in (tail, mirrored(tail))]
    ties = [Piece("head", p, "tie", "hair", base=False) for p in (tie, mirrored(tie))]
    return back + tails + fringe("straight") + ties


def spiky() -> list[Piece]:
    """Short, in spikes."""
    return behind(
        (0, -0.2), (0.17, -0.14), (0.205, -0.02), (0.2, 0.07, 1), (0.15, 0.08), (0.13, 0.14, 1), (0, 0.13)
    ) + fringe("spikes")


def curly() -> list[Piece]:
    """A round cloud of curls."""
    back = behind(
        (0, -0.235), (0.09, -0.24), (0.13, -0.215, 1), (0.2, -0.2), (0.215, -0.14, 1), (0.268, -0.08),
            (0.246, -0.02, 1),
        (0.28, 0.05), (0.246, 0.1, 1), (0.262, 0.165), (0.205, 0.18, 1), (0.18, 0.22), (0.1, 0.19, 1), (0, 0.2),
    )
    return back + fringe("curls")


def bun() -> list[Piece]:
    """A knot on top, a parted fringe."""
    knot = both((0, -0.268), (0.05, -0.26), (0.074, -0.232), (0.06, -0.2), (0, -0.19))
    tie = both((0, -0.216), (0.05, -0.212), (0.056, -0.2), (0, -0.19))
    back = behind((0, -0.2), (0.16, -0.15), (0.196, -0.02), (0.18, 0.09), (0.1, 0.14), (0, 0.15))
    top = [Piece("head", knot, "hair", "behind"), Piece("head", tie, "tie", "behind", base=False)]
    return back + top + fringe("parted")


STYLES: dict[str, Callable[[], list[Piece]]] = {
    "short": short, "bob": bob, "long": long, "ponytail": ponytail, "twintails": twintails, "spiky": spiky,
    "curly": curly, "bun": bun,
}
