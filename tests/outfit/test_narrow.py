"""The automatic mask, narrowed on the way: what a garment left as it was returns, and only that."""

import numpy as np
import torch
from PIL import Image

from minicc.data.samples import CLASSES
from minicc.outfit import phase2
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.narrow import Automatic, Narrowing, unchanged
from minicc.outfit.phase1 import prepare
from tests.outfit.test_compose import picture

TOP, BOTTOM, SKIN = (CLASSES.index(name) for name in ("top", "bottom", "skin"))


def clothes(index: np.ndarray, sure: float = 1.0) -> Clothes:
    p = np.full((len(CLASSES), *index.shape), (1 - sure) / (len(CLASSES) - 1), np.float32)
    np.put_along_axis(p, index[None].astype(int), sure, 0)
    return Clothes(p, np.zeros(index.shape, np.float32))


def figure(sleeve: int, trousers: int = BOTTOM) -> np.ndarray:
    """A body 20 wide in a picture of 64 × 64: a top down to row 30, bare arms below row `sleeve`, trousers under it."""
    index = np.zeros((64, 64), int)
    index[8:30, 20:40], index[30:56, 20:40] = TOP, trousers
    index[8:40, 10:20] = SKIN
    index[8:sleeve, 10:20] = TOP
    return index


def test_bare_arms_and_trousers_return_and_the_old_and_the_new_sleeve_do_not():
    mask = np.zeros((64, 64), bool)
    mask[6:50, 6:44] = True
    stays = unchanged(clothes(figure(14)), clothes(figure(24)), ["top"], mask)
    assert not stays[8:30, 20:40].any()  # the top's place
    assert not stays[8:24, 10:20].any()  # both sleeves
    assert stays[27:38, 11:17].all()  # the arm, a little below the new sleeve
    assert stays[33:48, 22:38].all()  # trousers


def test_a_garment_of_the_same_kind_never_returns_however_alike_it_looks():
    whole = np.ones((64, 64), bool)
    assert not unchanged(clothes(figure(14)), clothes(figure(14)), ["top"], whole)[figure(14) == TOP].any()
    assert not unchanged(clothes(figure(14)), clothes(figure(14)), ["dress"], whole)[figure(14) == BOTTOM].any()
    assert unchanged(clothes(figure(14)), clothes(figure(14)), ["top"], whole)[34:54, 22:38].all()


def test_what_is_not_sure_stays_as_drawn():
    whole = np.ones((64, 64), bool)
    for before, now in ((1.0, 0.4), (0.4, 1.0)):
        assert not unchanged(clothes(figure(14), before), clothes(figure(14), now), ["top"], whole).any()


class Watches(ClothingDetector):
    """Sees a garment picture as a top; the character in a short sleeve at first and in a longer one afterwards."""

    def __init__(self) -> None:
        super().__init__([1])
        self.seen: list[Image.Image] = []

    def find(self, sd: object, image: Image.Image) -> Clothes:
        if image.getpixel((image.width // 2, image.height // 2))[:3] == (255, 0, 0):
            return clothes(np.full(image.size[::-1], TOP))
        self.seen.append(image)
        return clothes(figure(14 if len(self.seen) == 1 else 24))


def red_garment() -> Image.Image:
    sheet = Image.new("RGB", (40, 40), "white")
    sheet.paste("red", (8, 6, 31, 31))
    return sheet


def test_the_narrowed_mask_is_what_the_result_declares_and_all_beside_it_is_the_characters(sd, control):
    detector, character = Watches(), picture((64, 64), "RGBA")
    results = phase2.variants(sd, control, character, red_garment(), detector=detector, seeds=[0, 1], steps=4)
    wide = phase2.automatic_mask(sd, Watches(), character, [red_garment()])
    assert len(detector.seen) == 3  # the character, and late in the sampling each of the two
    for result, drawn in zip(results, detector.seen[1:], strict=True):
        mask, same = np.asarray(result.mask) > 0, np.asarray(character) == np.asarray(result.image)
        assert mask.any()
        assert not (mask & ~wide.mask).any()
        assert mask.sum() < 0.8 * wide.mask.sum()
        assert same[~mask].all()
        assert np.array_equal(np.asarray(drawn)[~wide.mask], np.asarray(character)[~wide.mask])
    assert results[0].image.tobytes() != results[1].image.tobytes()


def test_a_painted_mask_and_one_of_an_unknown_garment_stay(sd, control):
    character, painted = picture((64, 64), "RGB"), np.zeros((64, 64), bool)
    painted[10:50, 10:40] = True
    options = {"detector": Watches(), "steps": 4}
    result = phase2.generate(sd, control, character, red_garment(), mask=painted, **options)
    assert np.array_equal(np.asarray(result.mask) > 0, painted)
    asked = Automatic(painted, [], clothes(figure(14)))
    ready = prepare(sd, character, painted)
    narrowing = Narrowing(sd, Watches(), [ready], [asked])
    assert torch.equal(narrowing(torch.zeros(1, 3, 64, 64)), ready.mask)


def test_where_nothing_changed_the_mask_is_kept_rather_than_emptied(sd):
    class Still(Watches):
        def find(self, sd: object, image: Image.Image) -> Clothes:
            return clothes(np.full((64, 64), SKIN))

    bare, character = clothes(np.full((64, 64), SKIN)), picture((64, 64), "RGB")
    mask = np.zeros((64, 64), bool)
    mask[10:50, 10:40] = True
    ready = prepare(sd, character, mask)
    narrowing = Narrowing(sd, Still(), [ready], [Automatic(mask, [], bare, ["top"])])
    assert torch.equal(narrowing(torch.zeros(1, 3, 64, 64)), ready.mask)
