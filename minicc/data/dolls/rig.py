"""The skeleton: for each pose and build, where every bone's own coordinates lie in the picture."""

from functools import lru_cache

from minicc.data.dolls.curves import Affine, affine, after, along

UPPER, LOWER = 0.11, 0.1  # lengths of an arm's bones
LEG = 0.205  # hip to ankle
# elbow and hand of the left arm and of the right one, from the neck's base, right positive
ARMS: dict[str, tuple[tuple[float, float], ...]] = {
    "down": ((-0.145, 0.145), (-0.168, 0.243), (0.145, 0.145), (0.168, 0.243)),
    "hip": ((-0.145, 0.145), (-0.168, 0.243), (0.222, 0.118), (0.134, 0.196)),
    "clasped": ((-0.152, 0.132), (-0.034, 0.178), (0.152, 0.132), (0.034, 0.178)),
    "wave": ((-0.145, 0.145), (-0.168, 0.243), (0.207, 0.075), (0.262, -0.03)),
    "out": ((-0.205, 0.085), (-0.298, 0.118), (0.205, 0.085), (0.298, 0.118)),
    "shop": ((-0.173, 0.128), (-0.232, 0.209), (0.173, 0.128), (0.232, 0.209)),
}
POSES = ("down", "hip", "clasped", "wave", "out")
WIDTH = {"slim": 0.9, "average": 1.0, "sturdy": 1.13}  # of body and limbs
BUILDS = tuple(WIDTH)
HEAD = (0.5, 0.28)
NECK = (0.5, 0.474)
SHOULDER, HIP, ANKLE = (0.106, 0.04), (0.058, 0.245), (0.062, 0.45)  # from the neck's base

# What part of the frame a garment's shop picture shows: its centre from the neck's base, and its magnification.
SHOP: dict[str, tuple[float, float, float]] = {
    "top": (0, 0.105, 1.72),
    "bottom": (0, 0.315, 2.4),
    "onepiece": (0, 0.215, 1.68),
    "shoes": (0, 0.42, 3.2),
    "hat": (0, -0.36, 1.6),
    "glasses": (0, -0.146, 3.0),
    "bow": (0.11, -0.394, 3.6),
    "scarf": (0.014, 0.055, 3.6),
}  # by slot; accessories by kind


@lru_cache(maxsize=256)
def bones(pose: str, build: str) -> dict[str, Affine]:
    """Each bone's affine map from its own coordinates to the frame; arms and legs hang down from their joint."""
    width = WIDTH[build]
    torso = affine(width, 0, 0, 1, *NECK)
    rig = {"head": affine(1, 0, 0, 1, *HEAD), "torso": torso, "neck": affine(1, 0, 0, 1, *NECK)}
    arms = ARMS[pose]
    for side, sign, (elbow, hand) in (("l", -1, arms[:2]), ("r", 1, arms[2:])):
        shoulder = on(torso, sign * SHOULDER[0], SHOULDER[1])
        shift = shoulder[0] - (NECK[0] + sign * SHOULDER[0])  # a wider body carries its arms further out
        joint = (NECK[0] + elbow[0] + shift, NECK[1] + elbow[1])
        end = (NECK[0] + hand[0] + shift, NECK[1] + hand[1])
        limb = (1 + width) / 2
        rig["upper_" + side] = along(shoulder, joint, UPPER, limb)
        rig["lower_" + side] = along(joint, end, LOWER, limb)
        rig["hand_" + side] = along(end, (2 * end[0] - joint[0], 2 * end[1] - joint[1]), length(joint, end), limb)
        hip, ankle = on(torso, sign * HIP[0], HIP[1]), on(torso, sign * ANKLE[0], ANKLE[1])
        rig["leg_" + side] = along(hip, ankle, LEG, width)
        rig["foot_" + side] = affine(limb, 0, 0, 1, *ankle)
    return rig


def on(place: Affine, x: float, y: float) -> tuple[float, float]:
    """Where the point lies in the picture."""
    return (
        float(place[0, 0] * x + place[0, 1] * y + place[0, 2]),
        float(place[1, 0] * x + place[1, 1] * y + place[1, 2]),
    )


def length(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The distance of two points."""
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)


@lru_cache(maxsize=64)
def shop(view: str) -> dict[str, Affine]:
    """The bones of a shop picture, a key of SHOP: an average body, arms half raised, magnified."""
    x, y, zoom = SHOP[view]
    near = affine(zoom, 0, 0, zoom, 0.5 - zoom * (NECK[0] + x), 0.5 - zoom * (NECK[1] + y))
    return {bone: after(near, place) for bone, place in bones("shop", "average").items()}
