"""Facts that no picture could tell are not held against it; all others are."""

from dataclasses import replace

import numpy as np
import pytest

from minicc.data.dolls import FACTS, Garment, Outfit, draw
from minicc.data.dolls.facts import numbers
from minicc.evaluation.settled import Answers, alike, alike_of, each_right

PATTERN = list(FACTS).index("top_pattern")


def wearing(doll, **garments):
    return doll.wearing(replace(doll.outfit, **{"top": None, "bottom": None, "onepiece": None} | garments))


@pytest.fixture(scope="module")
def doll():
    return draw(3)


def test_the_pattern_of_a_plain_shirt_shows_and_a_wrong_one_is_wrong(doll):
    shirt = wearing(doll, top=Garment("t-shirt", "red", "stripes", "short"), bottom=Garment("shorts", "blue"))
    assert not alike_of(shirt)
    read = Answers([shirt]).facts.copy()
    assert Answers([shirt]).right(read).all()
    read[0, PATTERN] = FACTS["top_pattern"].index("dots")
    assert np.flatnonzero(~Answers([shirt]).right(read)).tolist() == [PATTERN]


def test_a_logo_that_the_picture_hides_is_held_against_nobody():
    sailor = {"top": Garment("sailor top", "red", "logo", "long"), "bottom": Garment("jeans", "blue")}
    hidden = draw(3, pose="clasped", outfit=Outfit(**sailor))  # the hands lie over the heart
    assert alike(hidden, "top") == ("plain",)
    read = numbers(hidden.attributes())[None].copy()
    read[0, PATTERN] = FACTS["top_pattern"].index("plain")
    assert Answers([hidden]).right(read).all()
    read[0, PATTERN] = FACTS["top_pattern"].index("stripes")  # these would show beside the hands
    assert not Answers([hidden]).right(read).all()
    read[0, PATTERN] = FACTS["top_pattern"].index("plain")
    read[0, list(FACTS).index("top_colour")] += 1
    assert not Answers([hidden]).right(read).all()


def test_a_fact_is_judged_of_those_that_wear_such_a_thing_and_of_nobody_else():
    some = [draw(i, split="test") for i in range(12)]
    right = np.ones((12, len(FACTS)), bool)
    topless = [i for i, one in enumerate(some) if "top" not in one.slots]
    place = list(FACTS).index("top_pattern")
    right[topless, place] = False  # what is not there cannot be wrong
    dressed = [i for i in range(12) if i not in topless]
    right[dressed[0], place] = False
    shares = each_right(right, some)
    assert topless
    assert shares["top_pattern"] == pytest.approx(1 - 1 / len(dressed))
    assert shares["top_colour"] == 1
    assert np.isnan(each_right(right[topless], [some[i] for i in topless])["top"])
