"""The stage that learns what garments are called."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minicc.cli import main
from minicc.data import dolls
from minicc.data.dolls.captions import name
from minicc.data.dolls.wardrobe import CLASSES
from minicc.data.samples import CLASSES as KINDS
from minicc.data.samples import CLOTHES
from minicc.data.tensors import to_tensor
from minicc.outfit.clothing import ClothingDetector
from minicc.training.dolls_cache import draw_dolls, shown_slot
from minicc.training.names_stage import NAMES, OUTFITS, clothes_alone, pictured

N = 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_names_are_learned_and_the_rest_of_the_detector_stays(cache, tmp_path):
    options = ["--dolls", str(N), "--cache", str(cache), "--steps", "3", "--batch", "4", "--device", "cpu"]
    options += ["--warmup", "1", "--lr", "1e-2"]
    assert main(["train", "names", "--out", str(tmp_path / "a"), *options]) == 0
    old, new = (ClothingDetector.load(source) for source in ("tiny", tmp_path / "a" / "detector"))
    assert [(one.words, one.kind) for one in new.names.known] == NAMES
    kept = {key: weight for key, weight in new.state_dict().items() if not key.startswith("names.")}
    assert all(torch.equal(weight, old.state_dict()[key]) for key, weight in kept.items())
    assert not torch.equal(new.names.read.weight, old.names.read.weight)


def test_names_come_of_dolls_alone(cache, tmp_path, capsys):
    assert main(["train", "names", "--data", str(tmp_path), "--cache", str(cache), "--out", str(tmp_path / "c")]) == 2
    assert "paper dolls alone" in capsys.readouterr().err


def test_every_garment_that_is_drawn_has_a_name_of_its_own():
    assert len({words for words, _ in NAMES}) == len(NAMES)
    assert {kind for _, kind in NAMES} == {KINDS[i] for i in CLOTHES}


def test_pictures_have_the_numbers_of_their_names(cache):
    seeds = range(N)
    drawn, outfits = draw_dolls(cache, "train", seeds), 0
    for i in seeds:
        doll = dolls.draw(i, split="train")
        slot = shown_slot(doll.slots, i)
        worn = doll.worn(slot)
        for trial in range(8):
            picture, number = pictured(drawn, i, i, np.random.default_rng([trial, i]))
            outfits += number == 0
            assert picture.size == (128, 128)
            if number:
                assert NAMES[number - 1] == (name(slot, worn.kind, worn.length), KINDS[CLASSES[slot]])
    assert outfits / (8 * N) == pytest.approx(OUTFITS, abs=0.1)


def test_an_outfit_is_all_that_is_worn_and_no_more():
    doll = dolls.draw(2)
    image, parts = to_tensor(doll.image.convert("RGB"))[0], torch.from_numpy(doll.index)
    alone = clothes_alone(image, parts)
    clothes = torch.isin(parts, torch.tensor(CLOTHES))
    assert torch.equal(alone[:, clothes], image[:, clothes])
    assert (alone[:, ~clothes] == 1).all()
