"""What garments are called, and what the words are for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import minicc
from minicc import phase1, phase2
from minicc.data import dolls
from minicc.data.dolls.captions import name
from minicc.diffusion.steps import Step
from minicc.errors import Error
from minicc.evaluation.names import names_told
from minicc.evaluation.wears import wears
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.garment import garment_picture, placed
from minicc.outfit.names import SURE, Name, Names
from minicc.outfit.phase1 import OPENING, fill, instead, opened, prepare
from minicc.outfit.reach import kinds_in, kinds_of

KNOWN = [("a short dress", "dress"), ("jeans", "bottom")]


@pytest.fixture(scope="module")
def sd():
    return minicc.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def detector():
    return ClothingDetector.load("tiny")


def test_only_a_likely_name_counts():
    names = Names(2, KNOWN)
    torch.nn.init.zeros_(names.read.weight)
    for number, expected in ((0, None), (1, Name("a short dress", "dress")), (2, Name("jeans", "bottom"))):
        names.read.bias.data = 9.0 * torch.eye(3)[number]
        assert names.likeliest(torch.zeros(1, 2)) == expected
    names.read.bias.data = torch.tensor([0.0, SURE, 1 - SURE]).log()
    assert names.likeliest(torch.zeros(1, 2)) == Name("a short dress", "dress")
    names.read.bias.data = torch.tensor([0.0, SURE - 0.01, 1.01 - SURE]).log()
    assert names.likeliest(torch.zeros(1, 2)) is None


def test_what_lies_beside_the_plane_of_the_known_has_no_name():
    """Known ones lie in a plane of three of twenty dimensions."""
    names, draw = Names(20, KNOWN), torch.Generator().manual_seed(0)
    plane, rest = torch.linalg.qr(torch.randn(20, 20, generator=draw)).Q.split([3, 17])
    known = 5 * torch.randn(1000, 3, generator=draw) @ plane + 2
    names.measure(known + 0.01 * torch.randn(1000, 20, generator=draw))
    names.plane[3:] = 0  # what is left of 1000 noisy ones spans all twenty
    names.farthest.copy_(names.distance(known + 0.01 * torch.randn(1000, 20, generator=draw)).max())
    torch.nn.init.zeros_(names.read.weight)
    names.read.bias.data = torch.tensor([0.0, 0.0, 9.0])
    other = torch.randn(1, 3, generator=draw) @ plane + 2
    assert names.likeliest(other) == Name("jeans", "bottom")
    assert names.likeliest(other + rest[:1]) is None
    assert names.distance(other + rest[:1]).item() == pytest.approx(20**-0.5, abs=0.01)


def test_nearly_all_that_it_has_learned_from_is_near_enough():
    names = Names(300, KNOWN)
    means = torch.randn(8000, 300, generator=torch.Generator().manual_seed(0))
    names.measure(means)
    assert (names.distance(means) <= names.farthest).float().mean() == pytest.approx(0.99, abs=0.002)
    assert names.plane @ names.plane.T == pytest.approx(torch.eye(200), abs=1e-4)


def test_few_pictures_span_no_plane_that_holds_them_all():
    names, draw = Names(300, KNOWN), torch.Generator().manual_seed(0)
    known, others = torch.randn(2, 100, 20, generator=draw) @ torch.randn(20, 300, generator=draw)
    names.measure(known)
    assert (names.distance(others) <= names.farthest).float().mean() > 0.9


def test_a_detector_of_other_models_is_refused(sd):
    other = ClothingDetector([3, 4], heads=1, names=KNOWN)
    flat = dolls.draw(5).flat("shoes")
    for ask in (lambda: other.name(sd, garment_picture(flat, 128)), lambda: kinds_of(sd, other, flat)):
        with pytest.raises(Error, match="does not read these models"):
            ask()


def test_without_names_nothing_is_told(sd):
    assert names_told(sd, ClothingDetector([3], heads=1), [dolls.draw(0)]) == {}


def test_words_are_those_of_the_captions():
    assert name("top", "t-shirt", "long") == "a long-sleeved t-shirt"
    assert name("onepiece", "overalls", "short") == "short overalls"
    assert name("top", "armour") == "armour"


def test_names_are_saved_with_the_detector(tmp_path):
    detector = ClothingDetector([3, 4], heads=1, names=KNOWN)
    again = ClothingDetector.load(detector.save(tmp_path / "detector"))
    assert again.names is not None
    assert again.names.known == [Name(*one) for one in KNOWN]
    assert torch.allclose(again.names.read.weight, detector.names.read.weight.half().float())
    assert ClothingDetector.load(ClothingDetector([3], heads=1).save(tmp_path / "other")).names is None


def test_the_shipped_detector_knows_garments_that_no_training_has_seen(sd, detector):
    told = names_told(sd, detector, [dolls.draw(i, split="test", combinations="heldout") for i in range(15)])
    assert told["right"] >= 0.95
    assert told["wrong"] <= 0.02
    assert told["outfits"] >= 0.9


def test_what_is_no_garment_has_no_name(sd, detector):
    """A character; a grey square; noise."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    for picture in (dolls.draw(3).image.convert("RGB"), Image.new("RGB", (128, 128), "grey"), noise):
        assert detector.name(sd, picture) is None


def test_a_named_garment_is_of_the_kind_that_the_name_says(sd, detector):
    flat = placed(dolls.draw(5, split="test").flat("shoes"), 128)
    assert kinds_in(sd, detector, flat) == ["shoes"]
    another = SimpleNamespace(name=lambda *_: Name("a cap", "accessory"))
    assert kinds_in(sd, another, flat) == ["accessory"]


def test_an_opening_is_told_in_the_first_steps():
    model = opened(lambda x, t: "first", lambda x, t: "then", 2)
    assert [model(None, None) for _ in range(4)] == ["first", "first", "then", "then"]


def test_an_empty_opening_leaves_the_prompt():
    assert instead(["a", ""], ["b"]) == ["a", "b"]
    assert instead(["a"], ["b", "c"]) == ["a", "a"]
    with pytest.raises(ValueError, match="argument 2"):
        instead(["a", "b"], ["c", "d", "e"])


@pytest.mark.parametrize("steps", [3, 10, 50])
def test_it_is_told_down_to_its_timestep(sd, monkeypatch, steps):
    told = []
    monkeypatch.setattr(phase1, "opened", lambda first, then, early: told.append(early) or then)
    one = wears(1, 0)[0]
    ready = prepare(sd, one.character, one.mask)
    monkeypatch.setattr(phase1, "blended_steps", lambda *a: iter([Step(0, a[1], a[1], -1)]))
    fill(sd, ready.image, ready.mask, ["jeans"], [0], steps=steps, opening=["a red dress"])
    times = [t for t, _ in sd.schedule.pairs(steps)]
    assert times[told[0] - 1] >= OPENING > times[told[0]]


def test_an_opening_is_another_sentence_in_the_first_steps_alone(sd):
    """The prompt itself as opening changes nothing; another changes the picture; an empty one is none."""
    one = wears(1, 0)[0]
    ready = prepare(sd, one.character, one.mask)
    made = {
        said: fill(sd, ready.image, ready.mask, ["jeans"], [0], steps=4, opening=said)
        for said in ((), ("",), ("jeans",), ("a red dress",))
    }
    assert torch.equal(made[()], made[("",)])
    assert torch.allclose(made[()], made[("jeans",)], atol=1e-5)
    assert (made[()] - made[("a red dress",)]).abs().max() > 0.1


def test_what_a_garment_is_called_opens_unless_the_user_says_otherwise(sd, detector, monkeypatch):
    control = minicc.ControlNet.load("tiny-phase2", unet=sd.unet)
    said = []
    monkeypatch.setattr(phase2, "fill", lambda *a, opening=(), **k: said.append(list(opening)) or fill(*a, **k))
    one = wears(1, 0)[0]
    words = detector.name(sd, garment_picture(one.garment, 128)).words
    options = {"detector": detector, "steps": 2}
    made = phase2.generate(sd, control, one.character, one.garment, **options)
    assert said == [[words]]
    assert any(words in note for note in made.notes)
    made = phase2.generate(sd, control, one.character, one.garment, prompt="a red dress", **options)
    assert said[1:] == [[]]
    assert any(f"({words})" in note for note in made.notes)  # recognised, but not told
    made = phase2.generate(sd, control, one.character, one.garment, mask=one.mask, **options)
    assert said[2:] == [[words]]
    assert any(words in note for note in made.notes)
    phase2.generate(sd, control, one.character, one.garment, classes=["top"], **options)
    assert said[3:] == [[words]]
    phase2.generate(sd, control, one.character, one.garment, mask=one.mask, steps=2)
    assert said[4:] == [[""]]


def test_that_a_garment_was_cut_off_is_told(sd):
    control, one = minicc.ControlNet.load("tiny-phase2", unet=sd.unet), wears(2, 0)[1]
    assert placed(one.garment, 128).completed
    options = {"mask": one.mask, "steps": 1}
    assert phase2.MIRRORED in phase2.generate(sd, control, one.character, one.garment, **options).notes
    assert phase2.MIRRORED not in phase2.generate(sd, control, one.character, one.after.flat(one.slot), **options).notes
