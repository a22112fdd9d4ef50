"""Paper dolls: their ground truth holds, pixel for pixel."""

import hashlib
import json
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from minicc.data import dolls
from minicc.data.dolls import captions, wardrobe
from minicc.data.dolls.scenes import background
from minicc.data.dolls.wardrobe import random_outfit
from minicc.data.folder import read_folder
from minicc.data.samples import CLASSES, image_of, index_of
from minicc.data.tensors import on_white
from minicc.errors import Error

SOME = range(16)
DIGEST = "9de8701b51de16a921b3a446c9ef8e859a4193942ba9d08667e4a83aab0cd581"
CATALOGUE = "dde9d9b10bcab66788ff4545763792e5e44d61197d7be7407c8ef3bb4e3f7640"
NUMBER = {"top": 1, "bottom": 2, "onepiece": 3, "shoes": 4, "hat": 5, "accessory": 5}


def drawn(seed: int, **options) -> dolls.Doll:
    return dolls.draw(seed, size=96, split="test", **options)


def digest(*seeds: int, size: int = 96) -> str:
    h = hashlib.sha256()
    for seed in seeds:
        doll = dolls.draw(seed, size=size)
        h.update(
            doll.image.tobytes() + doll.index.tobytes() + doll.caption.encode() + doll.flat(doll.slots[0]).tobytes()
        )
    return h.hexdigest()


def test_a_seed_gives_the_same_bytes_each_time():
    assert digest(1, 2, 3) == digest(1, 2, 3) != digest(4, 5, 6)


def test_a_seed_gives_the_same_bytes_on_every_machine():
    assert digest(*range(8)) == DIGEST, "if the drawing was changed on purpose, put the new digest here"


def test_all_that_can_be_drawn_is_the_same_on_every_machine():
    """Every kind in every length, pattern, hair, pose and ground at least once, and where its pixels come from."""
    h = hashlib.sha256()
    kinds = [(slot, kind, lengths) for slot, all_kinds in dolls.SLOTS.items() for kind, lengths in all_kinds.items()]
    pieces = [(slot, kind, length) for slot, kind, lengths in kinds for length in lengths]
    for i, (slot, kind, length) in enumerate(pieces):
        pattern = list(dolls.PATTERNS)[i % len(dolls.PATTERNS)] if slot in wardrobe.PATTERNED else "plain"
        worn = {slot: dolls.Garment(kind, list(dolls.COLOURS)[i % 12], pattern, length)}
        if slot not in ("onepiece", "top", "bottom"):
            worn["onepiece"] = dolls.Garment("dress", "blue", "plain", "short")
        worn |= {"bottom": dolls.Garment("jeans", "blue")} if slot == "top" else {}
        worn |= {"top": dolls.Garment("shirt", "blue", "plain", "long")} if slot == "bottom" else {}
        looks = {name: options[i % len(options)] for name, options in dolls.OPTIONS.items()}
        doll = dolls.draw(i, size=64, outfit=dolls.Outfit(**worn), **looks)
        h.update(doll.image.tobytes() + doll.index.tobytes() + doll.correspondence(slot).tobytes())
    assert h.hexdigest() == CATALOGUE, "if the drawing was changed on purpose, put the new digest here"


def test_the_wardrobe_is_as_large_as_was_promised():
    kinds = {slot: len(kinds) for slot, kinds in dolls.SLOTS.items()}
    least = {"top": 10, "bottom": 6, "onepiece": 5, "shoes": 1, "hat": 1}
    assert {slot: n for slot, n in least.items() if kinds[slot] < n} == {}
    assert len(dolls.COLOURS) == 12
    assert {"plain", "stripes", "dots", "checks", "plaid", "stars", "gradient", "logo"} == set(dolls.PATTERNS)


def test_every_garment_can_be_drawn_and_appears_in_the_index():
    for slot, kinds in dolls.SLOTS.items():
        for kind, lengths in kinds.items():
            for length in lengths:
                garments = {slot: dolls.Garment(kind, "red", "plain", length)}
                if slot not in ("onepiece", "top", "bottom"):
                    garments["onepiece"] = dolls.Garment("dress", "blue", "plain", "short")
                garments |= {"bottom": dolls.Garment("jeans", "blue")} if slot == "top" else {}
                garments |= {"top": dolls.Garment("shirt", "blue", "plain", "long")} if slot == "bottom" else {}
                doll = drawn(0, outfit=dolls.Outfit(**garments), hair="short")
                assert (doll.index == NUMBER[slot]).sum() > 40, kind
                assert np.asarray(doll.flat(slot, "transparent"))[..., 3].any(), kind


GARMENTS = [
    (slot, kind, length)
    for slot in wardrobe.PATTERNED
    for kind, lengths in dolls.SLOTS[slot].items()
    for length in lengths
]
RED = {"build": dolls.OPTIONS["build"][0], "hair": "short", "background": "none", "size": 128}


def in_red(slot: str, kind: str, pattern: str, length: str, pose: str, **more: dolls.Garment) -> np.ndarray:
    """A doll in such a garment, (128, 128, 4)."""
    others = {
        "top": {"bottom": dolls.Garment("jeans", "blue")},
        "bottom": {"top": dolls.Garment("t-shirt", "blue", "plain", "short")},
    }
    worn = {slot: dolls.Garment(kind, "red", pattern, length)} | others.get(slot, {}) | more
    return np.asarray(dolls.draw(3, outfit=dolls.Outfit(**worn), pose=pose, **RED).image).astype(int)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((abs(a - b).max(-1) > 24).sum())


@pytest.mark.parametrize(("slot", "kind", "length"), GARMENTS)
def test_every_two_patterns_are_told_apart_on_every_garment(slot, kind, length):
    """By 40 pixels at least, with the arms hanging: a heart under a sleeve would be a fact that no picture shows."""
    seen = {pattern: in_red(slot, kind, pattern, length, "down") for pattern in dolls.PATTERNS}
    alike = [pair for pair in combinations(seen, 2) if differing(*(seen[one] for one in pair)) < 40]
    assert alike == []


@pytest.mark.parametrize(("slot", "kind", "length"), GARMENTS)
def test_arms_and_scarves_hide_few_hearts(slot, kind, length):
    """In clasped hands sailors and overalls have theirs; all others show a part of it in every pose, scarf or not."""
    scarf = {"accessory": dolls.Garment("scarf", "blue")}
    for pose in dolls.OPTIONS["pose"]:
        if pose == "clasped" and kind in ("sailor top", "overalls"):
            continue
        for more in ({}, scarf):
            heart, plain = (in_red(slot, kind, pattern, length, pose, **more) for pattern in ("logo", "plain"))
            assert differing(heart, plain) >= 20, (pose, *more)


def test_another_outfit_changes_no_pixel_outside_both_masks():
    rng = np.random.default_rng(0)
    for seed in SOME:
        doll = drawn(seed)
        other = doll.wearing(dolls.random_outfit(rng))
        outside = ~(clothes(doll) | clothes(other))
        a, b = np.asarray(doll.image), np.asarray(other.image)
        assert (a[outside] == b[outside]).all(), seed
        assert (a != b).any()


def clothes(doll: dolls.Doll) -> np.ndarray:
    return (doll.index > 0) & (doll.index < 6)


def test_the_index_is_none_where_nothing_was_painted():
    for seed in range(12):
        doll = drawn(seed, background="none")
        alpha = np.asarray(doll.image)[..., 3]
        assert not doll.index[alpha == 0].any()
        assert doll.index[alpha == 255].all()


def test_hair_and_skin_lie_over_clothes():
    robe = dolls.Outfit(onepiece=dolls.Garment("robe", "red"))
    short, long, clasped = (
        drawn(1, hair=hair, pose=pose, outfit=robe).index
        for hair, pose in (("short", "down"), ("long", "down"), ("short", "clasped"))
    )
    chest = slice(50, 66), slice(36, 60)
    assert (short[chest] == 3).all()
    assert (clasped[chest] == 7).any()  # hands
    assert ((long == 6) & (short == 3)).sum() > 20  # hair in front of the robe
    assert ((long == 6) & (short == 0)).sum() > 20  # and hair behind it, to be seen beside it


def test_the_correspondence_leads_to_the_same_cloth():
    for seed in SOME:
        doll = drawn(seed)
        slot = next(s for s in doll.slots if s in ("top", "onepiece"))
        where = doll.correspondence(slot)
        known = ~np.isnan(where[..., 0])
        worn, flat = np.asarray(doll.image.convert("RGB")).astype(int), np.asarray(doll.flat(slot)).astype(int)
        x, y = np.floor(where[known]).astype(int).T
        matched = np.abs(worn[known] - flat[y, x]).mean()
        shuffled = np.abs(worn[known] - np.random.default_rng(0).permutation(flat[y, x])).mean()
        assert known.sum() > 0.75 * (doll.index == NUMBER[slot]).sum(), seed
        assert matched < min(25, max(0.6 * shuffled, 12)), (seed, matched, shuffled)


def test_most_of_what_is_worn_is_found_in_the_picture_of_every_kind_of_garment():
    """Of trousers, shoes and hats too. 64 dolls of 96 pixels."""
    found: dict[str, list[float]] = {}
    for seed in range(64):
        doll = drawn(seed)
        for slot in doll.slots:
            worn = doll.index == NUMBER[slot]
            if slot in ("hat", "accessory") and {"hat", "accessory"} <= set(doll.slots):
                continue  # they share a number
            where = doll.correspondence(slot)
            known = ~np.isnan(where[..., 0])
            assert known[~worn].sum() < 0.03 * worn.sum(), (seed, slot)  # edges, which two things share
            assert where[known].min() >= 0, (seed, slot)
            assert where[known].max() < 96, (seed, slot)
            found.setdefault(slot, []).append(known[worn].mean())
    assert set(found) == set(dolls.SLOTS)
    shares = {slot: float(np.mean(shares)) for slot, shares in found.items()}
    assert min(shares.values()) > 0.85, shares


def test_the_correspondence_of_a_logo_is_exact_to_a_pixel():
    plain, heart = (dolls.Outfit(onepiece=dolls.Garment("dress", "red", p, "long")) for p in ("plain", "logo"))
    a, b = (dolls.draw(0, size=128, outfit=o, hair="short", pose="out", split="test") for o in (plain, heart))
    worn = (np.asarray(a.image) != np.asarray(b.image)).any(-1)
    flat = (np.asarray(a.flat("onepiece")) != np.asarray(b.flat("onepiece"))).any(-1)
    where = b.correspondence("onepiece")[worn]
    where = where[~np.isnan(where[:, 0])]
    rows, columns = np.nonzero(flat)
    distance = np.hypot(where[:, 0, None] - columns - 0.5, where[:, 1, None] - rows - 0.5).min(1)
    assert len(where) > 20
    assert distance.max() < 2


def test_training_never_shows_a_held_out_combination_and_heldout_shows_only_them():
    assert 0.06 < len(wardrobe.HELD_OUT) / (21 * 12 * 8) < 0.14
    for seed in range(300):
        for garment in main_garments(dolls.draw(seed)):
            assert garment not in wardrobe.HELD_OUT
        for garment in main_garments(dolls.draw(seed, split="test", combinations="heldout")):
            assert garment in wardrobe.HELD_OUT


def main_garments(doll: dolls.Doll) -> list[tuple[str, str, str]]:
    return [(g.kind, g.colour, g.pattern) for slot, g in doll.outfit.items() if slot in wardrobe.PATTERNED]


def test_splits_share_no_doll():
    """By their pictures, which no random words of a caption make different; the judge's own split as well."""
    kinds = [*dolls.SPLITS]
    assert {"train", "val", "test", "judge"} <= set(kinds)
    shown = [{dolls.draw(s, split=split, size=64).image.tobytes() for s in range(100)} for split in kinds]
    assert len(set.union(*shown)) == sum(map(len, shown)) == 100 * len(kinds)


def test_captions_name_every_garment_and_its_colour_in_many_wordings():
    for seed in range(200):
        doll = drawn(seed)
        for garment in dict(doll.outfit.items()).values():
            names = captions.SYNONYMS.get(garment.kind, (garment.kind,))
            assert any(re.search(rf"\b{re.escape(name)}\b", doll.outfit_text) for name in names)
            assert garment.colour in doll.outfit_text
            if garment.pattern != "plain":
                ways = captions.BEFORE[garment.pattern] + captions.AFTER[garment.pattern]
                assert any(way in doll.outfit_text for way in ways), garment
        assert doll.outfit_text in doll.caption
        assert doll.character.hair_colour in doll.caption
    doll = drawn(0)
    assert len({replace(doll, words=w).caption for w in range(50)}) > 40


def test_captions_use_an_before_a_vowel():
    assert captions.article("orange dress") == "an orange dress"
    assert captions.listed(["a cap", "boots", "a scarf"]) == "a cap, boots and a scarf"


def test_attributes_say_what_is_worn():
    outfit = dolls.Outfit(onepiece=dolls.Garment("dress", "pink", "dots", "long"), hat=dolls.Garment("crown", "yellow"))
    facts = drawn(0, outfit=outfit).attributes()
    assert facts["onepiece"] == "dress"
    assert facts["onepiece_length"] == "long"
    assert facts["hat_colour"] == "yellow"
    assert facts["top"] == facts["top_pattern"] == facts["shoes"] == "none"


@pytest.mark.parametrize("size", [64, 100, 256])
def test_any_size_of_at_least_64_pixels(size):
    doll = dolls.draw(0, size=size)
    assert doll.image.size == (size, size)
    assert doll.index.shape == (size, size)
    usual = np.asarray(on_white(dolls.draw(0).image).resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(on_white(doll.image).resize((64, 64), Image.Resampling.BOX)) - usual).mean() < 10
    assert np.abs(255 - usual).mean() > 20  # which an empty picture would miss


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 32}, "64"),
        ({"split": "holdout"}, "expected one of"),
        ({"combinations": "heldout"}, "never occur in training"),
        ({"beard": "long"}, "no beard"),
        ({"hair": "mohawk"}, "short, bob"),
    ],
)
def test_what_makes_no_doll_is_an_error_that_says_so(options, words):
    with pytest.raises(Error, match=words):
        dolls.draw(0, **options)


def test_outfits_that_cannot_be_worn_are_errors():
    for wrong in ({}, {"top": dolls.Garment("jeans", "red")}, {"top": dolls.Garment("vest", "crimson")}):
        with pytest.raises(Error):
            dolls.Outfit(**wrong)
    with pytest.raises(Error, match="slots are"):
        drawn(0, outfit=dolls.Outfit(onepiece=dolls.Garment("robe", "red"))).flat("top")


def test_backgrounds_stay_behind():
    for name in ("mint", "mint gradient", "meadow", "beach", "city", "room", "night"):
        doll = drawn(5, background=name)
        alone = np.asarray(drawn(5, background="none").image)[..., 3] == 0
        assert (np.asarray(doll.image)[alone][:, :3] == background(name, 96)[alone]).all()
        assert (np.asarray(doll.image)[..., 3] == 255).all()


def test_the_dataset_gives_tensors_and_the_same_doll_each_time():
    data = dolls.DollDataset("val", 3, size=64, seed=10)
    sample = data[1]
    assert sample["image"].shape == (3, 64, 64)
    assert sample["image"].min() >= -1
    assert sample["image"].max() <= 1
    assert sample["mask"].bool().logical_xor((sample["index"] > 0) & (sample["index"] < 6)).sum() == 0
    assert sample["caption"] == data.doll(1).caption
    assert len(list(data)) == 3


def test_an_exported_folder_is_read_back(tmp_path):
    some = [drawn(seed) for seed in range(3)]
    samples, report = read_folder(dolls.export(tmp_path, some))
    assert not report
    assert [s.caption for s in samples] == [d.outfit_text for d in some]
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").open()]
    assert [row["caption"] for row in rows] == [d.caption for d in some]
    for sample, doll in zip(samples, some, strict=True):
        assert (index_of(sample, doll.image.size) == np.where(doll.index < 6, doll.index, 0)).all()


def test_exported_pairs_are_read_back_in_both_directions(tmp_path):
    samples, report = read_folder(dolls.export(tmp_path, [drawn(seed) for seed in range(3)], "pairs"))
    assert not report
    assert len(samples) == 6
    assert all(s.garment and s.target and s.target_mask and s.garment_text for s in samples)


def test_of_an_exported_pair_only_the_garment_that_is_shown_changes(tmp_path):
    samples, _ = read_folder(dolls.export(tmp_path, [drawn(i) for i in range(8)], "pairs"))
    for there, back in zip(samples[::2], samples[1::2], strict=True):
        (kind,) = there.changed
        number, size = CLASSES.index(kind), (96, 96)
        before, after = (index_of(sample, size) for sample in (there, back))
        differs = (np.asarray(image_of(there)) != np.asarray(image_of(back))).any(-1)
        assert differs.sum() > 50
        assert not (differs & (before != number) & (after != number)).any()
        assert ((before == number) & (after == number) & ~differs).sum() < 0.1 * differs.sum()


@pytest.mark.parametrize(("layout", "name"), [("pairs", "images/000000-a.png"), ("viton", "image/000000.png")])
def test_a_transparent_doll_is_exported_on_white(tmp_path, layout, name):
    dolls.export(tmp_path, [drawn(0, background="none")], layout)
    picture = Image.open(tmp_path / name)
    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_second_outfits_for_training_have_no_held_out_combination(tmp_path):
    def held_out(combinations: str) -> bool:
        """Whether a second outfit names one."""
        found = [random_outfit(np.random.default_rng(i), combinations) for i in range(40)]
        return any((g.kind, g.colour, g.pattern) in dolls.HELD_OUT for outfit in found for _, g in outfit.items())

    assert held_out("any")
    assert not held_out("seen")
    some = [drawn(i) for i in range(40)]
    any_rows, seen_rows = (
        [json.loads(line) for line in (dolls.export(tmp_path / c, some, "pairs", c) / "metadata.jsonl").open()]
        for c in ("any", "seen")
    )
    assert [row["outfit_a"] for row in any_rows] == [row["outfit_a"] for row in seen_rows]
    changed = [i for i in range(40) if any_rows[i]["outfit_b"] != seen_rows[i]["outfit_b"]]
    assert 0 < len(changed) < 40


def test_exported_layers_are_read_back_and_give_the_picture(tmp_path):
    some = [drawn(seed) for seed in range(4)]
    samples, report = read_folder(dolls.export(tmp_path, some, "layers"))
    assert not report.dropped
    assert [sample.caption for sample in samples] == [doll.caption for doll in some]
    for sample, doll in zip(samples, some, strict=True):
        laid = np.asarray(image_of(sample).convert("RGBA")).astype(int)
        assert np.abs(laid - np.asarray(doll.image)).max(-1).mean() < 0.5
        index, truth = index_of(sample, doll.image.size), np.where(doll.index < 6, doll.index, 0)
        both = (index > 0) & (index < 6) & (truth > 0)
        assert (index == truth)[both].mean() > 0.98
        assert both.sum() > 0.9 * (truth > 0).sum()


def test_below_the_clothes_a_layer_is_whole():
    doll = next(d for d in map(drawn, range(20)) if "top" in d.slots)
    body = next(np.asarray(p)[..., 3] > 0 for name, p in doll.layers.items() if name.endswith("skin_body"))
    assert (body & (doll.index == wardrobe.CLASSES["top"])).sum() > 50


def test_exported_viton_is_read_back(tmp_path):
    some = [drawn(seed) for seed in range(3)]
    samples, report = read_folder(dolls.export(tmp_path, some, "viton"))
    assert not report.dropped
    for sample, doll in zip(samples, some, strict=True):
        assert sample.caption == doll.caption
        assert (index_of(sample, doll.image.size) == doll.index).all()
        assert sample.garment


def test_an_unknown_layout_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(Error, match="imagefolder, pairs, layers, viton"):
        dolls.export(tmp_path / "new", [drawn(0)], "coco")
    assert not (tmp_path / "new").exists()


def test_old_and_new_dolls_do_not_mix_in_a_folder(tmp_path):
    dolls.export(tmp_path / "new", [drawn(0)], "layers")
    with pytest.raises(Error, match="not empty"):
        dolls.export(tmp_path / "new", [drawn(1)])
    assert dolls.export(tmp_path / "none", []).is_dir()


def test_a_contact_sheet_has_a_cell_for_each():
    sheet = dolls.contact_sheet([drawn(seed) for seed in range(5)], columns=3)
    assert sheet.size == (3 * 96, 2 * 96)
    assert sheet.mode == "RGB"
    assert isinstance(sheet, Image.Image)
