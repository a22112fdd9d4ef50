"""What a garment replaces and how far it reaches, measured on dolls whose garment is changed for another."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data import dolls
from minicc.data.dolls.wardrobe import CLASSES as NUMBERS
from minicc.data.dolls.wardrobe import PATTERNED
from minicc.data.samples import CLASSES
from minicc.evaluation.base import pictures
from minicc.evaluation.detector import parts_of
from minicc.outfit.clothing import Clothes, features
from minicc.outfit.detect import NothingFound, clothing_mask, figures_in
from minicc.outfit.reach import closed, hands, kinds_of, reaching_mask, whole_height
from minicc.small import small_stable_diffusion
from minicc.training.data import in_range
from minicc.training.detector_stage import Parts, alone, fit, half_figure
from minicc.training.draws import rng

KINDS = {"top": "top", "bottom": "bottom", "onepiece": "dress", "shoes": "shoes"}


def changes(slot: str, count: int = 14):
    """(part mask, changed pixels) of dolls whose garment in this slot is changed."""
    for i in range(60):
        doll, random = dolls.draw(1_000_000 + i, split="test"), rng(i, 9)
        if slot in doll.slots:
            other = doll.wearing(replace(doll.outfit, **{slot: dolls.random_garment(random, slot, "heldout")}))
            changed = (np.asarray(doll.image) != np.asarray(other.image)).any(-1)
            if changed.any():  # the same shoes may be drawn again
                yield doll.index, changed
                count -= 1
        if not count:
            return


@pytest.mark.parametrize(
    ("slot", "covered", "more"),
    [("top", 0.96, 2.2), ("bottom", 0.98, 1.8), ("onepiece", 0.98, 0.8), ("shoes", 0.97, 1.0)],
)
def test_the_mask_covers_what_truly_changes_and_little_more(slot, covered, more):
    """Shares of the changed pixels; without the reach a tenth to a fifth of them stays outside."""
    pairs, tight = [], []
    for index, changed in changes(slot):
        mask, worn = (make(Clothes.certain(index), [KINDS[slot]]) for make in (reaching_mask, clothing_mask))
        pairs.append(((mask & changed).sum() / changed.sum(), (mask & ~changed).sum() / changed.sum()))
        tight.append((worn & changed).sum() / changed.sum())
    reached, excess = np.mean(pairs, 0)
    assert reached > covered
    assert excess < more
    assert reached > np.mean(tight) + 0.03


def test_between_legs_it_is_filled_and_between_specks_it_is_not():
    layer = np.zeros((24, 20), bool)
    layer[5:15, 4:8] = layer[5:15, 10:14] = layer[20, [4, 9]] = True
    filled = closed(layer, 4)
    assert filled[5:15, 4:14].all()
    assert filled[20].sum() == 2


def test_hands_that_end_where_trousers_begin_are_not_joined_to_the_hips():
    index = np.zeros((100, 60), np.uint8)
    index[0:40, 20:40], index[40:69, 26:34], index[69:96, 26:34] = (
        CLASSES.index(name) for name in ("hair", "top", "bottom")
    )
    index[55:69, [9, 10, 11, 48, 49, 50]] = CLASSES.index("skin")  # hands; their lowest row is the trousers' first
    index[96:100, 26:34] = CLASSES.index("shoes")
    mask = reaching_mask(Clothes.certain(index), ["bottom"])
    assert mask[68, 26:34].all()
    assert not mask[68, 18:20].any()  # what hand and hip, each with its margin, leave between them


def test_hair_face_and_shoes_stay():
    for index, _ in changes("onepiece", 5):
        mask = reaching_mask(Clothes.certain(index), ["dress"])
        assert not mask[index == CLASSES.index("hair")].any()
        rows = np.flatnonzero((index > 0).any(1))
        assert not mask[: int(rows[0] + 0.35 * (rows[-1] - rows[0]))].any()
        assert not mask[rows[-1] - 2 :].any()


def test_of_a_bust_the_face_stays_and_the_shoulders_are_reached():
    reached = []
    for index, _ in changes("top", 8):
        bust = index[: len(index) * 62 // 100]
        worn = np.isin(bust, [CLASSES.index("top"), CLASSES.index("dress")])
        collar, head = int(worn.any(1).argmax()), int((bust > 0).any(1).argmax())
        mask = reaching_mask(Clothes.certain(bust), ["top"])
        assert not mask[: collar - (collar - head) // 8].any()
        whole = reaching_mask(Clothes.certain(index), ["top"])[: len(bust)]
        reached.append((mask & whole)[collar:].sum() / whole[collar:].sum())
    assert np.mean(reached) > 0.9


def test_a_whole_figure_that_stands_on_the_pictures_edge_is_no_bust():
    for slot in ("top", "bottom", "onepiece"):
        for index, _ in changes(slot, 5):
            rows = np.flatnonzero((index > 0).any(1))
            height, is_bust = whole_height(Clothes.certain(index[: rows[-1] + 1]))
            assert (height, is_bust) == (rows[-1] - rows[0] + 1, False)


def test_a_short_top_over_trousers_and_a_large_head_make_no_bust():
    index = np.zeros((100, 60), np.uint8)
    index[:55, 10:50] = CLASSES.index("skin")  # a head of more than half of the figure
    index[55:65, 20:40], index[65:95, 20:40] = CLASSES.index("top"), CLASSES.index("bottom")
    index[95:, 20:40] = CLASSES.index("shoes")
    assert whole_height(Clothes.certain(index)) == (100, False)
    assert not whole_height(Clothes.certain(index[:95]))[1]  # cut through the trousers
    assert whole_height(Clothes.certain(index[:65])) == (round(55 / 0.46), True)
    index[:, 5] = CLASSES.index("hair")  # a strand down to the edge changes nothing
    assert whole_height(Clothes.certain(index))[1] is False


def test_bare_feet_take_shoes_and_no_hand_that_hangs_low():
    dolls_shod = (dolls.draw(1_000_000 + i, split="test") for i in range(60))
    barefoot = [doll for doll in dolls_shod if "shoes" not in doll.slots][:4]
    assert len(barefoot) == 4
    for doll in barefoot:
        boots = doll.wearing(replace(doll.outfit, shoes=dolls.Garment("boots", "red")))
        changed = (np.asarray(doll.image) != np.asarray(boots.image)).any(-1)
        assert (reaching_mask(Clothes.certain(doll.index), ["shoes"]) & changed).sum() > 0.9 * changed.sum()

    index = np.zeros((100, 60), np.uint8)
    index[:50, 20:40], index[50:80, 20:40] = CLASSES.index("skin"), CLASSES.index("dress")
    index[80:, 22:28] = index[80:, 32:38] = index[50:88, 4:8] = CLASSES.index("skin")  # two legs, a long arm
    mask = reaching_mask(Clothes.certain(index), ["shoes"])
    assert mask[80:, 22:28].all()
    assert not mask[:, :12].any()
    with pytest.raises(NothingFound, match="no shoes found"):
        reaching_mask(Clothes.certain(index[:75]), ["shoes"])


def test_a_dress_replaces_top_and_bottom_and_a_top_replaces_a_dress():
    two = next(d for d in map(dolls.draw, range(20)) if "top" in d.slots)
    one = next(d for d in map(dolls.draw, range(20)) if "onepiece" in d.slots)
    worn = np.isin(two.index, [NUMBERS["top"], NUMBERS["bottom"]])
    assert reaching_mask(Clothes.certain(two.index), ["dress"])[worn].mean() > 0.99
    assert reaching_mask(Clothes.certain(one.index), ["top"])[one.index == NUMBERS["onepiece"]].mean() > 0.99


def test_where_nothing_is_worn_that_a_garment_replaces_all_of_that_is_named():
    index = np.full((20, 20), CLASSES.index("skin"), np.uint8)
    with pytest.raises(NothingFound, match="no dress or top or bottom found"):
        reaching_mask(Clothes.certain(index), ["dress"])


def test_figures_apart_are_counted_and_crumbs_are_not():
    index = np.zeros((40, 60), np.uint8)
    index[5:35, 5:20] = 1
    index[2, 50] = 7
    assert figures_in(Clothes.certain(index)) == 1
    index[5:35, 30:45] = 2
    assert figures_in(Clothes.certain(index)) == 2
    assert figures_in(Clothes.certain(np.zeros((4, 4), np.uint8))) == 0
    for i in range(6):
        assert figures_in(Clothes.certain(dolls.draw(i).index)) == 1


def test_a_garment_alone_is_labelled_where_it_is_and_white_within_it_is_its_own():
    flat = torch.ones(3, 8, 8)
    flat[:, 2:6, 2:6] = -1
    flat[:, 3, 3] = 1
    parts = alone(flat, 2)
    assert parts.sum() == 2 * 16
    assert parts[3, 3] == 2


def test_a_quarter_of_the_detectors_samples_are_garments_alone_and_a_twentieth_nobody():
    doll = {"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "index": torch.full((1, 8, 8), 6, dtype=torch.uint8)}
    flat = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    flat[:, :, 2:6, 2:6] = 9
    both = Parts(doll, 0, {"flat": flat, "slot": torch.tensor([3], dtype=torch.uint8)})
    shown = [set(both[0, i]["index"].unique().tolist()) for i in range(400)]
    assert 75 <= shown.count({0, 3}) <= 125
    assert 8 <= shown.count({0}) <= 35
    assert shown.count({6}) == 400 - shown.count({0, 3}) - shown.count({0})
    assert {0, 3} not in [set(Parts(doll, 0)[0, i]["index"].unique().tolist()) for i in range(50)]


def test_half_a_figure_is_cut_below_the_hair_and_enlarged_with_its_mask():
    doll = dolls.draw(3)
    image, parts = pictures([doll])[0], torch.from_numpy(doll.index)
    bust, seen = half_figure(image, parts, 0.5)
    assert bust.shape == image.shape
    assert seen.shape == parts.shape
    assert seen.dtype == parts.dtype
    assert set(seen.unique().tolist()) <= set(parts.unique().tolist())
    assert CLASSES.index("shoes") not in seen
    assert (seen == CLASSES.index("hair")).sum() > 2.5 * (parts == CLASSES.index("hair")).sum()
    assert (seen[-1] > 0).any(), "it is cut off"
    edges = (seen[:, 1:] != seen[:, :-1]) & (seen[:, 1:] * seen[:, :-1] == 0)
    jump = (bust[:, :, 1:] - bust[:, :, :-1]).abs().amax(0)
    assert jump[edges].mean() > 4 * jump[~edges].mean(), "picture and mask lie on one another"
    everything, same = half_figure(image, parts, 1.0)
    torch.testing.assert_close(everything, image, atol=1e-5, rtol=0)
    assert torch.equal(same, parts)


def test_a_quarter_of_the_characters_are_half_figures_with_their_masks():
    doll = dolls.draw(3)
    kept = {"image": in_bytes(doll)[None], "index": torch.from_numpy(doll.index)[None]}
    data, whole = Parts(kept, 0, nobody=0), Parts(kept, 0, nobody=0, halves=0)
    cut = 0
    for position in range(200):
        sample, uncut = data[0, position], whole[0, position]
        if not torch.equal(sample["image"], uncut["image"]):
            cut += 1
            share = next(s for s in np.linspace(0.45, 0.85, 401) if same(half_figure(*unpacked(kept), s), sample))
            assert 0.45 <= share <= 0.85
    assert 30 <= cut <= 70


def in_bytes(doll) -> torch.Tensor:
    return torch.from_numpy(np.asarray(doll.image.convert("RGB")).transpose(2, 0, 1).copy())


def unpacked(kept: dict) -> tuple[torch.Tensor, torch.Tensor]:
    return in_range(kept["image"][0]), kept["index"][0]


def same(half: tuple[torch.Tensor, torch.Tensor], sample: dict) -> bool:
    """Up to mirroring: the picture and its mask, both."""
    return any(
        torch.equal(image, sample["image"]) and torch.equal(parts, sample["index"])
        for image, parts in (half, tuple(x.flip(-1) for x in half))
    )


def test_where_nobody_is_there_is_a_background_and_nothing_to_find():
    doll = {"image": torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "index": torch.full((1, 16, 16), 6)}
    samples = [Parts(doll, 0, nobody=1.0)[0, i] for i in range(8)]
    assert not any(sample["index"].any() for sample in samples)
    assert len({sample["image"].numpy().tobytes() for sample in samples}) > 4


class Nameless:
    """A detector that has learned no names."""

    def name(self, sd, picture):
        return None


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ({"top": 20}, ["top"]),
        ({"top": 9, "bottom": 11}, ["bottom", "top"]),
        ({"top": 14, "bottom": 6}, ["top"]),
        ({"top": 11, "dress": 9}, ["top"]),  # one garment, and the other word for it
        ({"dress": 11, "bottom": 9}, ["dress"]),
        ({"top": 8, "dress": 7, "bottom": 5}, ["top", "bottom"]),
        ({"top": 9, "bottom": 8, "shoes": 3}, ["top", "bottom"]),
        ({"top": 6, "bottom": 5, "shoes": 5, "accessory": 4}, ["top", "bottom", "shoes", "accessory"]),
        ({"top": 5, "bottom": 5, "shoes": 5, "accessory": 5}, ["top", "bottom", "shoes", "accessory"]),
        ({}, []),
    ],
)  # fmt: skip
def test_a_whole_outfit_is_several_kinds_and_a_few_doubtful_pixels_are_none(rows, kinds):
    """What the detector sees in a picture that is a garment all over but for its margin."""
    names = [name for name, count in rows.items() for _ in range(count)] or ["none"] * 20

    class Seeing(Nameless):
        def find(self, sd, picture):
            index = np.zeros((picture.height, picture.width), np.uint8)
            middle = np.array([CLASSES.index(name) for name in names], np.uint8)
            top = (picture.height - 20) // 2
            index[top : top + 20] = middle[:, None]
            return Clothes.certain(index)

    garment = Image.new("RGBA", (40, 40))
    garment.paste((200, 30, 30, 255), (10, 2, 30, 38))
    sd = SimpleNamespace(side=32)
    assert kinds_of(sd, Seeing(), garment) == kinds


def test_what_is_likely_all_over_counts_more_than_what_is_just_likeliest_in_more_places():
    class Seeing(Nameless):
        def find(self, sd, picture):
            p = np.zeros((len(CLASSES), picture.height, picture.width), np.float32)
            p[CLASSES.index("top")], p[CLASSES.index("dress")] = 0.51, 0.49
            half = picture.width // 2 - 1  # a little less than half of the garment
            p[CLASSES.index("top"), :, :half], p[CLASSES.index("dress"), :, :half] = 0.05, 0.95
            return Clothes(p, p[0])

    garment = Image.new("RGBA", (40, 40))
    garment.paste((200, 30, 30, 255), (10, 2, 30, 38))
    assert kinds_of(SimpleNamespace(side=32), Seeing(), garment) == ["dress"]


def test_what_a_garment_is_can_be_read_off_its_picture():
    """Heads on random features, taught by eight dolls and their garments alone, on these garments."""
    sd = small_stable_diffusion()
    some = [dolls.draw(i) for i in range(6)]
    shown = [(doll.flat(slot), NUMBERS[slot]) for doll in some for slot in doll.slots if slot in PATTERNED]
    flats = torch.cat([torch.from_numpy(np.asarray(p) / 127.5 - 1).float().permute(2, 0, 1)[None] for p, _ in shown])
    labels = torch.stack([alone(flat, number) for flat, (_, number) in zip(flats, shown, strict=True)])
    images, index = torch.cat([pictures(some), flats]), torch.cat([parts_of(some), labels])
    detector = fit(lambda x: features(sd, x), images, index, 0, 200)
    right = [kinds_of(sd, detector, picture) == [CLASSES[number]] for picture, number in shown]
    assert np.mean(right) > 0.6


def figure_with_arms(sleeves: bool) -> np.ndarray:
    """A part mask, 100 high: head, dress, arms at the sides, in sleeves down to the hands or bare; legs, shoes."""
    index = np.zeros((104, 60), np.uint8)
    skin, dress = CLASSES.index("skin"), CLASSES.index("dress")
    index[2:45, 15:45] = skin  # head
    index[45:50, 26:34] = skin  # what the neckline shows
    index[50:85, 20:40] = dress
    index[85:97, 22:38] = skin
    index[97:102, 22:38] = CLASSES.index("shoes")
    for columns in (slice(8, 17), slice(43, 52)):
        index[50:70, columns] = dress if sleeves else skin
        index[70:79, columns] = skin
    return index


def test_hands_that_come_out_of_sleeves_stay_and_what_else_is_bare_may_be_covered():
    index = figure_with_arms(sleeves=True)
    found = hands(Clothes.certain(index))
    mask = reaching_mask(Clothes.certain(index), ["dress"])
    assert found[72:77, 10:15].all()
    assert found[72:77, 45:50].all()
    assert not found[:70].any()  # neither face nor neckline
    assert not found[80:].any()  # nor legs
    assert not (mask & found).any()
    assert mask[70, 8:17].all()  # the rim, as far as a sleeve may come
    bare = Clothes.certain(figure_with_arms(sleeves=False))
    assert not hands(bare).any()
    assert reaching_mask(bare, ["dress"])[60:78, 10:15].all()
    assert not hands(Clothes.certain(np.zeros((40, 40), np.uint8))).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a figure one pixel high no head is left to take the mean of
        assert not hands(Clothes.certain(np.full((1, 5), CLASSES.index("skin"), np.uint8))).any()


def test_no_garment_covers_much_of_the_hands_that_stay():
    """Of dolls that are dressed anew, the share of these pixels that truly change; most dolls have sleeves."""
    shares, seen = [], 0
    for i in range(24):
        doll, random = dolls.draw(500_000 + i, split="val"), rng(i, 9)
        slot = "top" if "top" in doll.slots else "onepiece"
        other = doll.wearing(replace(doll.outfit, **{slot: dolls.random_garment(random, slot, "heldout")}))
        found = hands(Clothes.certain(doll.index))
        changed = (np.asarray(doll.image) != np.asarray(other.image)).any(-1)
        shares.append((found & changed).sum() / max(1, found.sum()))
        seen += found.any()
    assert np.mean(shares) < 0.08
    assert seen >= 14
