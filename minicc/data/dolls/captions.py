"""Sentences about dolls, by a small grammar with paraphrases: the same facts are said in many ways."""

from typing import Protocol

import numpy as np

from minicc.data.dolls.wardrobe import Garment, Outfit, pick

PLURAL = ("trousers", "jeans", "shorts", "leggings", "overalls", "sneakers", "boots", "sandals", "pumps", "glasses")
MASS = ("armour",)
SYNONYMS = {
    "t-shirt": ("t-shirt", "tee"),
    "sweater": ("sweater", "jumper"),
    "trousers": ("trousers", "pants"),
    "sneakers": ("sneakers", "trainers"),
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "woolly hat"),
    "bow": ("bow", "hair bow"),
}
BEFORE = {
    "plain": ("", "", "plain"),
    "stripes": ("striped",),
    "dots": ("dotted", "polka-dot"),
    "checks": ("checked", "chequered"),
    "plaid": ("plaid", "tartan"),
    "stars": ("starry", "star-patterned"),
    "gradient": ("gradient", "fading"),
    "logo": ("heart-print",),
}
AFTER = {
    "stripes": ("with stripes",),
    "dots": ("with dots", "with polka dots"),
    "checks": ("with checks",),
    "plaid": ("with a plaid pattern",),
    "stars": ("with stars",),
    "gradient": ("with a gradient",),
    "logo": ("with a heart", "with a heart logo"),
}
SLEEVES = {"short": "short-sleeved", "long": "long-sleeved"}
FEELING = {
    "smiling": ("smiling", "happy"),
    "laughing": ("laughing",),
    "calm": ("calm",),
    "surprised": ("surprised",),
    "winking": ("winking",),
    "grumpy": ("grumpy", "angry"),
}
POSES = {
    "down": ("standing",),
    "hip": ("with a hand on the hip",),
    "clasped": ("with clasped hands", "with hands together"),
    "wave": ("waving",),
    "out": ("with arms spread", "with open arms"),
}
HAIR = {
    "short": "short {} hair",
    "bob": "a {} bob",
    "long": "long {} hair",
    "ponytail": "a {} ponytail",
    "twintails": "{} twintails",
    "spiky": "spiky {} hair",
    "curly": "curly {} hair",
    "bun": "{} hair in a bun",
}
PLACES = {
    "none": ("on white", "on a white background"),
    "meadow": ("on a meadow", "in a green field"),
    "beach": ("at the beach", "by the sea"),
    "city": ("in the city", "in a town"),
    "room": ("in a room", "at home"),
    "night": ("at night", "under the moon"),
}


class Who(Protocol):
    """What a caption needs to know of a character."""

    @property
    def build(self) -> str: ...
    @property
    def pose(self) -> str: ...
    @property
    def skin(self) -> str: ...
    @property
    def hair(self) -> str: ...
    @property
    def hair_colour(self) -> str: ...
    @property
    def eyes(self) -> str: ...
    @property
    def expression(self) -> str: ...
    @property
    def background(self) -> str: ...


def caption(who: Who, outfit: Outfit, words: int) -> str:
    """A sentence about the whole picture; `words` chooses the paraphrases, and what stays unsaid of the character."""
    rng = np.random.default_rng([words, 1])
    person, clothes = subject(rng, who), outfit_text(outfit, words)
    forms = (f"{person} wearing {clothes}", f"{person} in {clothes}", f"{person}, dressed in {clothes}")
    where = f" {place(rng, who.background)}" if rng.integers(100) < 75 else ""
    return pick(rng, forms) + where


def subject(rng: np.random.Generator, who: Who) -> str:
    """The character: always the hair, often the feeling, sometimes eyes, skin and pose."""
    feeling = pick(rng, FEELING[who.expression]) if rng.integers(100) < 70 else ""
    parts = [HAIR[who.hair].format(who.hair_colour)]
    if rng.integers(100) < 50:
        parts.append(f"{who.eyes} eyes")
    if rng.integers(100) < 50:
        parts.insert(0, f"{who.skin} skin")
    build = who.build if who.build != "average" and rng.integers(100) < 50 else ""
    noun = pick(rng, ("doll", "character", "chibi"))
    pose = f" {pick(rng, POSES[who.pose])}" if rng.integers(100) < 60 else ""
    return article(spaced(feeling, build, noun)) + " with " + listed(parts) + pose


def place(rng: np.random.Generator, background: str) -> str:
    """Where the doll stands."""
    if background in PLACES:
        return pick(rng, PLACES[background])
    return f"on a {background}" if background.endswith("gradient") else f"on a {background} background"


def outfit_text(outfit: Outfit, words: int) -> str:
    """All clothes in words, the large ones first."""
    rng = np.random.default_rng([words, 2])
    said = {slot: phrase(rng, garment) for slot, garment in outfit.items()}
    main = [said[slot] for slot in ("top", "bottom", "onepiece") if slot in said]
    rest = [said[slot] for slot in ("shoes", "hat", "accessory") if slot in said]
    if not rest:
        return listed(main)
    return listed([*main, *rest]) if rng.integers(2) else f"{listed(main)} with {listed(rest)}"


def phrase(rng: np.random.Generator, garment: Garment) -> str:
    """One garment: "a long-sleeved red shirt with stripes"."""
    noun = pick(rng, SYNONYMS.get(garment.kind, (garment.kind,)))
    length = cut(garment.slot, garment.length)
    behind = garment.pattern in AFTER and rng.integers(2)
    pattern = pick(rng, (AFTER if behind else BEFORE)[garment.pattern])
    colour = garment.colour
    words = spaced(length, *((colour, noun, pattern) if behind else shuffled(rng, pattern, colour) + (noun,)))
    return words if garment.kind in PLURAL + MASS else article(words)


def name(slot: str, kind: str, length: str = "") -> str:
    """What such a garment is called, whatever its colour and pattern: "a long-sleeved shirt", "short overalls"."""
    words = spaced(cut(slot, length), kind)
    return words if kind in PLURAL + MASS else article(words)


def cut(slot: str, length: str) -> str:
    """A length in words."""
    return SLEEVES[length] if length and slot == "top" else length


def shuffled(rng: np.random.Generator, pattern: str, colour: str) -> tuple[str, str]:
    """Pattern and colour in either order."""
    return (colour, pattern) if rng.integers(2) else (pattern, colour)


def article(noun: str) -> str:
    """a or an."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def spaced(*words: str) -> str:
    """The words that are not empty."""
    return " ".join(word for word in words if word)


def listed(items: list[str]) -> str:
    """One, two and three."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
