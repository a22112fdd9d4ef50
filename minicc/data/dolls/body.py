"""The body under the clothes: legs, torso, arms, hands."""

from minicc.data.dolls.curves import both, ellipse
from minicc.data.dolls.pieces import Piece, mirror

TORSO = both(
    (0.034, -0.03), (0.04, 0.0), (0.1, 0.018), (0.112, 0.06), (0.094, 0.15), (0.11, 0.235), (0.075, 0.275), (0, 0.285)
)
UPPER = (
    (-0.03, -0.012),
    (0, -0.03),
    (0.03, -0.012),
    (0.032, 0.06),
    (0.03, 0.115),
    (0, 0.14),
    (-0.03, 0.115),
    (-0.032, 0.06),
)
LOWER = ((-0.03, 0.0), (0, -0.028), (0.03, 0.0), (0.028, 0.06), (0.026, 0.1), (0, 0.115), (-0.026, 0.1), (-0.028, 0.06))
LEG = (
    (-0.05, -0.02),
    (0.05, -0.02),
    (0.047, 0.08),
    (0.04, 0.16),
    (0.038, 0.215),
    (0, 0.225),
    (-0.038, 0.215),
    (-0.04, 0.16),
    (-0.047, 0.08),
)
FOOT = ((-0.036, -0.02), (0.036, -0.02), (0.046, 0.02), (0.04, 0.038), (0, 0.042), (-0.04, 0.038), (-0.046, 0.02))


def body() -> list[Piece]:
    """Skin, from the neck down; the hands have a layer of their own, in front of the sleeves."""
    legs = [Piece("leg_r", LEG, "skin", "body"), Piece("foot_r", FOOT, "skin", "body")]
    arms = [
        Piece("upper_r", UPPER, "skin", "arm_r"),
        Piece("lower_r", LOWER, "skin", "arm_r"),
        Piece("hand_r", ellipse(0, 0.004, 0.036), "skin", "arm_r"),
    ]
    thumb = Piece("hand_r", ellipse(-0.026, -0.006, 0.014, 0.017), "skin", "arm_r", base=True, shaded=False)
    return [*mirror(legs), Piece("torso", TORSO, "skin", "body"), *mirror([*arms, thumb])]
