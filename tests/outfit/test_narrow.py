"""The automatic mask, narrowed on the way: what a garment left as it was returns, and only that."""

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data.samples import CLASSES
from minicc.data.tensors import mask_tensor
from minicc.errors import Error
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.compose import grow, latent_mask
from minicc.outfit.narrow import AutomaticMask, Narrowing, unchanged
from minicc.outfit.phase1 import prepare
from tests.outfit.test_compose import picture

TOP, BOTTOM, SKIN = (CLASSES.index(name) for name in ("top", "bottom", "skin"))


def clothes(index: np.ndarray, sure: float = 1.0) -> Clothes:
    p = np.full((len(CLASSES), *index.shape), (1 - sure) / (len(CLASSES) - 1), np.float32)
    np.put_along_axis(p, index[None].astype(int), sure, 0)
    return Clothes(p, np.zeros(index.shape, np.float32))


def figure(sleeve: int) -> np.ndarray:
    """A body 20 wide in a picture of 64 × 64: a top down to row 30, bare arms below row `sleeve`, trousers under it."""
    index = np.zeros((64, 64), int)
    index[8:30, 20:40], index[30:56, 20:40] = TOP, BOTTOM
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
    results = phase2.variants(sd, control, character, red_garment(), detector=detector, seeds=[0, 1], steps=8)
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
    asked = AutomaticMask(painted, [], clothes(figure(14)))
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
    narrowing = Narrowing(sd, Still(), [ready], [AutomaticMask(mask, [], bare, ["top"])])
    assert torch.equal(narrowing(torch.zeros(1, 3, 64, 64)), ready.mask)


def test_feather_grows_the_narrowed_mask_again_and_no_further_than_the_first(sd, control):
    character, options = picture((64, 64), "RGB"), {"steps": 4, "seed": 0}
    plain, feathered = (
        phase2.generate(sd, control, character, red_garment(), detector=Watches(), feather=feather, **options)
        for feather in (0, 6)
    )
    wide = grow(phase2.automatic_mask(sd, Watches(), character, [red_garment()]).mask, 6)
    narrow, grown = (np.asarray(one.mask) > 0 for one in (plain, feathered))
    assert not (grow(narrow, 6) & wide & ~grown).any()
    assert not (grown & ~wide).any()
    assert grown.sum() < wide.sum()


def test_from_the_narrowing_on_the_latents_outside_the_smaller_mask_are_the_known_ones(sd, control, monkeypatch):
    seen, step = [], phase1.blended_steps

    def watched(*args):
        for one in step(*args):
            seen.append(one)
            yield one

    monkeypatch.setattr(phase1, "blended_steps", watched)
    encoded, encode = [], sd.encode_image
    monkeypatch.setattr(sd, "encode_image", lambda x: encoded.append(encode(x)) or encoded[-1])
    character, detector = picture((64, 64), "RGB"), Watches()
    mask = phase2.automatic_mask(sd, Watches(), character, [red_garment()]).mask
    result = phase2.generate(sd, control, character, red_garment(), detector=detector, steps=8)
    small = latent_mask(mask_tensor(np.asarray(result.mask) > 0), sd.vae.stride)
    wide = latent_mask(mask_tensor(mask), sd.vae.stride)
    given_back = ((wide > 0) & (small == 0)).expand_as(seen[-1].x)
    assert given_back.any()
    assert torch.equal(seen[-1].x[given_back], encoded[-1][given_back])
    noise = torch.randn(encoded[-1].shape, generator=torch.Generator().manual_seed(0))
    kept = [sd.schedule.add_noise(encoded[-1], noise, seen[i].s)[given_back] for i in (5, 6)]
    assert not torch.equal(seen[5].x[given_back], kept[0])  # still drawn
    assert torch.equal(seen[6].x[given_back], kept[1])


@pytest.mark.parametrize("options", [{"put_back": False}, {"again": 0}])
def test_without_a_known_part_or_a_moment_to_look_nothing_can_be_narrowed(sd, options):
    ready = prepare(sd, picture((64, 64), "RGB"), np.eye(64, dtype=bool))
    with pytest.raises(Error, match="narrowing needs a known part and a moment to look at it"):
        phase1.fill(sd, ready.image, ready.mask, [""], [0], narrow=lambda drawn: ready.mask, **options)


def test_a_batch_needs_what_was_found_of_every_character_and_who_found_it(sd, control):
    character, mask = picture((64, 64), "RGB"), np.zeros((64, 64), bool)
    mask[10:50, 10:40] = True
    ready, garments = [prepare(sd, character, mask)] * 2, torch.ones(2, 3, 64, 64)
    found = [AutomaticMask(mask, [], clothes(figure(14)), ["top"])]
    for options in ({"detector": Watches(), "found": found}, {"found": found * 2}):
        with pytest.raises(Error, match="narrowing takes a detector and one of each"):
            phase2.batch(sd, control, ready, garments, [0, 1], steps=1, **options)
