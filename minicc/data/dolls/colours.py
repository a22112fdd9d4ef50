"""The colours of clothes, skin and hair, and how they are shaded and outlined."""

Colour = tuple[int, int, int]

CLOTH: dict[str, Colour] = {
    "white": (250, 248, 244),
    "grey": (152, 157, 168),
    "black": (56, 54, 66),
    "red": (222, 56, 62),
    "orange": (247, 146, 50),
    "yellow": (253, 218, 76),
    "green": (70, 168, 84),
    "teal": (52, 190, 190),
    "blue": (58, 104, 214),
    "purple": (136, 84, 190),
    "pink": (250, 156, 190),
    "brown": (142, 90, 58),
}
SECOND: dict[str, Colour] = {
    "white": (84, 98, 160),
    "grey": (60, 62, 78),
    "black": (232, 230, 236),
    "red": (255, 240, 224),
    "orange": (255, 246, 222),
    "yellow": (214, 122, 44),
    "green": (226, 244, 196),
    "teal": (236, 252, 248),
    "blue": (222, 236, 255),
    "purple": (238, 222, 255),
    "pink": (255, 246, 250),
    "brown": (242, 216, 172),
}  # what stripes, dots, trims … of a garment of that colour are drawn in

SKIN: dict[str, Colour] = {
    "fair": (255, 231, 214),
    "light": (253, 216, 186),
    "tan": (236, 186, 142),
    "olive": (208, 158, 112),
    "brown": (166, 112, 78),
    "dark": (116, 76, 58),
}
HAIR: dict[str, Colour] = {
    "black": (62, 58, 74),
    "brown": (128, 82, 56),
    "blond": (246, 212, 118),
    "red": (206, 84, 48),
    "grey": (186, 190, 202),
    "pink": (246, 150, 184),
    "blue": (86, 132, 218),
    "green": (104, 178, 118),
}
EYES: dict[str, Colour] = {
    "brown": (124, 74, 44),
    "blue": (48, 116, 206),
    "green": (52, 148, 84),
    "purple": (136, 78, 184),
    "amber": (206, 134, 36),
}


def times(colour: Colour, factor: tuple[int, int, int]) -> Colour:
    """Each channel times factor / 256."""
    return (colour[0] * factor[0] >> 8, colour[1] * factor[1] >> 8, colour[2] * factor[2] >> 8)


def mix(a: Colour, b: Colour, percent: int) -> Colour:
    """`percent` of b, the rest a."""
    return (
        (a[0] * (100 - percent) + b[0] * percent) // 100,
        (a[1] * (100 - percent) + b[1] * percent) // 100,
        (a[2] * (100 - percent) + b[2] * percent) // 100,
    )


SHADE = (206, 190, 214)  # of 256: shadows turn a little violet


def shade(colour: Colour) -> Colour:
    """The colour in shadow."""
    return times(colour, SHADE)


def light(colour: Colour) -> Colour:
    """The colour where the light falls."""
    return mix(colour, (255, 252, 244), 38)


def ink(colour: Colour) -> Colour:
    """The outline of a shape of this colour: itself, far darker, a little violet."""
    return mix(times(colour, (118, 100, 112)), (46, 26, 62), 40)
