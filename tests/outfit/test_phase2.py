"""Phase 2: a garment's picture, worn; exact outside the mask, and without a garment phase 1 itself."""

import copy
import inspect
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from minicc.cli import main, parser
from minicc.data import dolls
from minicc.data.ground import foreground
from minicc.errors import Error, PictureError
from minicc.models.blocks import transformers
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import WAYS, in_way
from minicc.outfit import phase1, phase2
from minicc.outfit.clothing import Clothes, ClothingDetector
from minicc.outfit.colours import colour_error
from minicc.outfit.garment import garment_picture, placed
from minicc.training.draws import Draws
from minicc.training.phase2_stage import Phase2Stage, moved, moved_points, variation, varied
from tests.outfit.test_compose import picture, square


@pytest.fixture
def mask() -> np.ndarray:
    return square((70, 50), (20, 10, 40, 40))


def garment(colour: str = "red", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A rectangle of one colour on white."""
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).rectangle((8, 6, 30, 20), fill=colour)
    return sheet


@pytest.mark.parametrize("size", [(40, 30), (400, 300)], ids=["smaller", "larger than the character"])
def test_outside_the_mask_every_value_is_the_characters(sd, control, mask, size):
    character = picture((70, 50), "RGBA")
    result = phase2.generate(sd, control, character, garment(size=size), mask=mask, steps=2)
    before, after = np.asarray(character), np.asarray(result.image)
    assert np.array_equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).any()


def test_a_controlnet_of_the_other_phase_is_warned_about_and_one_of_unknown_phase_is_not(sd, control, mask):
    trained, character = copy.deepcopy(control), picture((70, 50), "RGB")
    runs = {
        1: lambda: phase1.generate(sd, trained, character, mask, "a hat", steps=1),
        2: lambda: phase2.generate(sd, trained, character, garment(), mask=mask, steps=1),
    }
    for trained.phase in (None, 1, 2):
        for wanted, generate in runs.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                generate()
            said = [str(w.message) for w in caught if "was trained for phase" in str(w.message)]
            assert len(said) == (trained.phase not in (None, wanted))
            assert all(f"was trained for phase {trained.phase}" in words for words in said)


@pytest.mark.parametrize("way", ["joint", "decoder"])
def test_without_a_garment_the_result_is_exactly_phase_1s(sd, control, mask, way):
    control, character = in_way(copy.deepcopy(control), way), picture((70, 50), "RGB")
    one = phase1.generate(sd, control, character, mask, "a red dress", steps=2, guidance=3.0, seed=5)
    two = phase2.generate(sd, control, character, [], mask=mask, prompt="a red dress", steps=2, guidance=3.0, seed=5)
    assert one.image.tobytes() == two.image.tobytes()


@pytest.mark.parametrize("way", ["joint", "decoder"])
def test_with_fresh_zero_convolutions_the_garment_changes_nothing(sd, mask, way):
    fresh, character = in_way(ControlNet.from_unet(sd.unet), way), picture((70, 50), "RGB")
    worn, bare = (phase2.generate(sd, fresh, character, g, mask=mask, steps=2).image for g in (garment(), []))
    assert worn.tobytes() == bare.tobytes()


def test_another_garment_gives_another_picture_and_two_garments_a_third(sd, control, mask):
    character, red, blue = picture((70, 50), "RGB"), garment("red"), garment("blue", (30, 60))
    made = [
        phase2.generate(sd, control, character, g, mask=mask, steps=3).image.tobytes() for g in (red, blue, [red, blue])
    ]
    assert len(set(made)) == 3


def test_the_detector_finds_the_mask_and_only_the_classes_asked_for(sd, control):
    character = picture((70, 50), "RGB")
    both, top = (
        np.asarray(phase2.generate(sd, control, character, garment(), detector=Sees(), classes=c, steps=1).mask) > 0
        for c in (("top", "bottom"), ("top",))
    )
    assert both.sum() == 35 * 20
    assert top.sum() == 20 * 20
    assert (both | top).sum() == both.sum()


class Sees(ClothingDetector):
    """Sees a top above trousers in any picture of 70 × 50; in all others, garments of which red ones are tops."""

    def __init__(self) -> None:
        super().__init__([1])

    def find(self, sd: object, image: Image.Image) -> Clothes:
        index = np.zeros(image.size[::-1], int)
        if image.size == (70, 50):
            index[10:30, 20:40], index[30:45, 20:40] = 1, 2
        else:
            index[:] = {(255, 0, 0): 1, (0, 0, 255): 2}.get(image.getpixel((image.width // 2, image.height // 2)), 0)
        return Clothes(np.eye(8, dtype=np.float32)[index].transpose(2, 0, 1), np.zeros(index.shape, np.float32))


def test_a_top_changes_the_top_and_two_garments_change_both(sd):
    character = picture((70, 50), "RGB")
    masks = {}
    for colours in (("red",), ("blue",), ("red", "blue"), ("green",)):
        pictures = [garment(colour) for colour in colours]
        found = phase2.automatic_mask(sd, Sees(), character, pictures)
        masks[colours], (note,) = found.mask, found.notes
        assert ("not recognised" if colours == ("green",) else "taken for: ") in note
    assert masks["red",][10:30, 20:40].all()
    assert not masks["red",][40:45].any()
    assert masks["blue",][30:45, 20:40].all()
    assert not masks["blue",][:28].any()
    assert np.array_equal(masks["red", "blue"], masks["red",] | masks["blue",])
    assert masks["green",].sum() == 35 * 20


def test_half_an_outfit_in_the_place_of_a_one_piece_is_told(sd, control):
    class Dressed(Sees):
        """The character wears a one-piece, and what may be a bit of a top."""

        def find(self, sd: object, image: Image.Image) -> Clothes:
            found = super().find(sd, image)
            if image.size != (70, 50):
                return found
            index = np.where(found.index == 2, 3, found.index)
            index[12:30] = np.where(index[12:30] > 0, 3, 0)
            return Clothes(np.eye(8, dtype=np.float32)[index].transpose(2, 0, 1), found.uncertainty)

    character = picture((70, 50), "RGB")
    for colours, where in ((("red",), "below"), (("blue",), "above"), (("red", "blue"), None)):
        given = [garment(colour) for colour in colours]
        notes = phase2.generate(sd, control, character, given, detector=Dressed(), steps=1).notes
        assert sum("taken for" in note for note in notes) == len(colours)
        told = [note for note in notes if "one-piece makes way" in note]
        assert len(told) == (where is not None)
        assert all(f"worn {where} is invented" in note for note in told)


def test_a_detector_that_is_unsure_of_the_character_says_so_with_every_result(sd):
    class Unsure(Sees):
        def find(self, sd: object, image: Image.Image) -> Clothes:
            return replace(super().find(sd, image), uncertainty=np.full(image.size[::-1], 0.5, np.float32))

    for classes, pictures in (([], [garment("red")]), ([], [garment("green")]), (["top"], [])):
        sure = phase2.automatic_mask(sd, Sees(), picture((70, 50), "RGB"), pictures, classes).notes
        doubt, *rest = phase2.automatic_mask(sd, Unsure(), picture((70, 50), "RGB"), pictures, classes).notes
        assert doubt.startswith("the detector is unsure of this picture")
        assert rest == sure


def test_an_outfit_is_put_on_one_after_the_other_and_trousers_before_the_top(sd, control):
    character, options = picture((70, 50), "RGBA"), {"detector": Sees(), "steps": 1, "seed": 3}
    whole = phase2.generate(sd, control, character, [garment("red"), garment("blue")], **options)
    first = phase2.generate(sd, control, character, garment("blue"), **options)
    second = phase2.generate(sd, control, first.image, garment("red"), **options)
    assert whole.image.tobytes() == second.image.tobytes()
    changed = np.asarray(whole.mask) > 0
    assert np.array_equal(changed, (np.asarray(first.mask) > 0) | (np.asarray(second.mask) > 0))
    assert np.array_equal(np.asarray(character)[~changed], np.asarray(whole.image)[~changed])
    assert [note for note in whole.notes if "taken for" in note] == [
        "the garment is taken for: bottom", "the garment is taken for: top"
    ]  # fmt: skip
    assert whole.colour_error > 0


def test_what_was_recognised_and_how_far_the_colours_are_is_told_with_every_result(sd, control):
    result = phase2.generate(sd, control, picture((70, 50), "RGB"), garment(), detector=Sees(), steps=1)
    assert "the garment is taken for: top" in result.notes
    assert result.colour_error is not None
    assert result.colour_error > 0


def test_colours_that_are_all_there_have_no_error_and_others_have():
    red, blue = garment("red", (64, 64)), garment("blue", (64, 64))
    mask = np.zeros((64, 64), bool)
    mask[4:24, 4:34] = True  # loose: nearly half of it is the white beside the garment
    assert colour_error([red], red, mask) < 1
    assert colour_error([red], blue, mask) > 30


def test_two_figures_are_refused_and_where_nothing_is_found_the_uncertainty_is_written(sd, tmp_path):
    class Two(Sees):
        def find(self, sd: object, image: Image.Image) -> Clothes:
            index = np.zeros((50, 70), int)
            index[5:40, 5:20], index[5:40, 40:60] = self.what, self.what
            return Clothes(np.eye(8, dtype=np.float32)[index].transpose(2, 0, 1), np.zeros(index.shape, np.float32))

    detector, character = Two(), picture((70, 50), "RGB")
    detector.what = 1
    with pytest.raises(PictureError, match="shows 2 figures: crop to one"):
        phase2.automatic_mask(sd, detector, character, [], ["top"])
    detector.what = 0
    with pytest.raises(PictureError, match="no clothes found"):
        phase2.automatic_mask(sd, detector, character, [], uncertainty=tmp_path / "u.png")
    assert Image.open(tmp_path / "u.png").size == (70, 50)


def test_without_mask_and_detector_an_error_says_what_is_missing(sd, control):
    with pytest.raises(Error, match=r"pass detector=.*or a mask"):
        phase2.generate(sd, control, picture((70, 50), "RGB"), garment())


@pytest.mark.parametrize("asked", [{"classes": ["top"]}, {"uncertainty": "u.png"}])
def test_what_only_a_detector_can_answer_is_refused_with_a_mask(sd, control, mask, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match="classes and uncertainty are the detector's"):
        phase2.generate(sd, control, picture((70, 50), "RGB"), garment(), mask=mask, **asked)
    assert not list(tmp_path.iterdir())


def test_guidance_is_the_same_wherever_none_is_asked_for():
    defaults = {inspect.signature(f).parameters["guidance"].default for f in (phase2.variants, phase2.batch)}
    words = ["phase2", "--character", "c.png", "--garment", "g.png", "--out", "o.png"]
    assert defaults == {parser().parse_args(words).guidance}


def test_a_garment_lies_on_white_in_the_middle_whatever_its_picture_was():
    plain, large = garment(), garment().resize((400, 300), Image.Resampling.NEAREST)
    on_grey = Image.new("RGB", (90, 90), "grey")
    on_grey.paste(plain.crop((8, 6, 31, 21)), (60, 3))
    transparent = Image.new("RGBA", (90, 90))
    transparent.paste(plain.crop((8, 6, 31, 21)), (5, 70))
    made = [np.asarray(garment_picture(g, 64)).astype(int) for g in (plain, large, on_grey, transparent)]
    assert (made[0][32, 32] == (255, 0, 0)).all()
    assert (made[0][[0, -1]] == 255).all()
    for other in made[1:]:
        assert abs(other - made[0]).mean() < 4


def test_white_cloth_on_white_is_cloth_and_a_hole_that_shows_another_ground_is_none():
    for ground, counts in (("white", 20 * 20), ("grey", 20 * 20 - 8 * 8)):
        sheet = Image.new("RGB", (40, 40), ground)
        sheet.paste("red", (10, 10, 30, 30))
        sheet.paste(ground, (16, 16, 24, 24))
        assert foreground(sheet).sum() == counts
    sheet.paste("grey", (16, 16, 40, 24))  # open to the border: a gap between two parts
    assert not foreground(sheet)[16:24, 16:].any()


def test_a_garment_whose_sleeves_the_border_cuts_off_is_taken():
    sheet = Image.new("RGB", (40, 40), "white")
    sheet.paste("red", (0, 4, 40, 16))  # both ends on the border: 15 % of it
    assert placed(sheet, 64).shown.sum() > 0


def tulle() -> Image.Image:
    """A garment that one can see through but for two pixels in its corners."""
    sheet = Image.new("RGBA", (600, 600), (200, 30, 90, 100))
    for corner in ((0, 0), (599, 599)):
        sheet.putpixel(corner, (200, 30, 90, 255))
    return sheet


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (Image.new("RGB", (20, 20), "white"), "empty"),
        (Image.new("RGBA", (20, 20)), "empty"),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 100)), "nearly transparent, alpha below 128 everywhere"),
        (picture((40, 40), "RGB"), "busy: cut the garment out"),
        (tulle(), "nothing but specks of the garment is opaque"),
    ],
)
def test_a_garment_that_cannot_be_told_from_its_ground_is_refused_with_advice(sheet, words):
    with pytest.raises(PictureError, match=words):
        garment_picture(sheet, 64)


@pytest.mark.parametrize("way", ["joint", "decoder"])
def test_what_no_step_changes_is_computed_once_however_many_steps(sd, control, way):
    """Text keys and values, the hint's features, the garment's own pass: as often for six steps as for two."""
    learner = in_way(copy.deepcopy(control), way)
    texts = [block.attn2.to_k for model in (sd.unet, learner) for block in transformers(model)]
    watched = [learner.controlnet_cond_embedding, *texts]
    counts = {steps: Counter() for steps in (2, 6)}
    for steps, seen in counts.items():
        hooks = [m.register_forward_hook(lambda module, *_, seen=seen: seen.update([module])) for m in watched]
        hooks.append(learner.conv_in.register_forward_hook(lambda *_, seen=seen: seen.update(["copy"])))
        phase2.generate(
            sd, learner, picture((32, 32), "RGB"), garment(), mask=square((32, 32), (8, 8, 24, 24)), steps=steps
        )
        for hook in hooks:
            hook.remove()
    passes = [seen.pop("copy") for seen in counts.values()]
    assert counts[2] == counts[6]
    assert set(counts[2].values()) <= {1, 2, 3}  # with a prompt and without, and the garment's
    assert passes[1] - passes[0] == 2 * 4  # two branches a step; the garment's own pass is in neither


def batch_of(sd, n: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, other = (torch.rand(n, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    mask = torch.zeros(n, 1, 32, 32)
    mask[:, :, 8:24, 8:24] = 1
    context = sd.encode_text(["a red dress"] * n)
    return {"image": image, "garment": other, "mask": mask, "latents": sd.encode_image(image), "context": context}


def test_the_loss_of_a_tenth_of_the_batches_does_not_depend_on_the_garment(sd, control):
    stage, batch = Phase2Stage(sd, control), batch_of(sd)
    changed = batch | {"garment": -batch["garment"]}
    with torch.no_grad():
        same = [torch.equal(stage(batch, Draws.at(0, i)), stage(changed, Draws.at(0, i))) for i in range(60)]
    assert 1 <= sum(same) <= 14


def test_a_varied_garment_stays_on_white_and_its_colours_stay():
    flat = torch.ones(3, 32, 32)
    flat[:, 12:20, 10:22] = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1)
    seen = [varied(flat, np.random.default_rng(i)) for i in range(20)]
    for x in seen:
        assert (x[0] - 1).abs().max() < 1e-5
        assert x[1].min() == pytest.approx(-1, abs=0.05)
        assert (x[:, 0] == 1).all()
    assert len({x.numpy().tobytes() for x in seen}) == 20


def test_a_point_lies_where_its_garment_was_moved_to():
    flat, point = torch.ones(3, 32, 32), torch.tensor([20.5, 9.5]) / 32
    flat[:, 9, 20] = -1
    for i in range(8):
        theta = variation(np.random.default_rng(i))
        dark = (1 - moved(flat, theta)[0]).clamp(min=0)
        y, x = ((dark * n).sum() / dark.sum() for n in torch.meshgrid(*[torch.arange(32) + 0.5] * 2, indexing="ij"))
        assert (moved_points(point, theta) * 32).tolist() == pytest.approx([x.item(), y.item()], abs=0.5)


def test_a_garment_placed_tells_where_its_points_are():
    one = placed(garment(), 64)
    corners = one.moved(np.array([[8, 6], [31, 21]], float)) * 64
    rows, columns = np.flatnonzero(one.shown.any(1)), np.flatnonzero(one.shown.any(0))
    assert corners[0] == pytest.approx([columns[0], rows[0]], abs=1)
    assert corners[1] == pytest.approx([columns[-1] + 1, rows[-1] + 1], abs=1)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_trains_on_the_same_batch_and_attention_can_be_taught(sd, control, way):
    learner, batch = in_way(copy.deepcopy(control), way, True), batch_of(sd)
    batch["where"] = torch.full((2, 4, 4, 2), 0.5)
    losses = []
    for supervise in (0.0, 1.0) if way == "decoder" else (0.0,):
        stage = Phase2Stage(sd, learner, supervise=supervise)
        losses.append(stage(batch, Draws.at(0, 2)))
        losses[-1].backward()
    assert all(loss.isfinite() for loss in losses)
    assert losses[-1] > losses[0] or way != "decoder"
    assert learner.controlnet_cond_embedding.conv_in.weight.grad.abs().max() > 0


def test_train_and_run_phase_2_from_the_command_line(sd, control, tmp_path, capsys):
    """From phase 1's ControlNet to phase 2's; and what is said if the first is taken for the second."""
    sd.save(tmp_path / "sd")
    start = copy.deepcopy(control)
    start.phase = 1
    start.save(tmp_path / "start")
    options = [
        "--variant",
        "decoder",
        "--positions",
        "--supervise",
        "0.1",
        "--dolls",
        "6",
        "--cache",
        str(tmp_path / "cache"),
        "--steps",
        "1",
        "--batch",
        "2",
        "--device",
        "cpu",
    ]
    files = ["--sd", str(tmp_path / "sd"), "--control", str(tmp_path / "start"), "--out", str(tmp_path / "run")]
    assert main(["train", "phase2", *files, *options]) == 0
    doll = dolls.draw(3, split="test")
    doll.image.save(tmp_path / "c.png")
    doll.flat(doll.slots[0]).save(tmp_path / "g.png")
    Image.fromarray((doll.index == doll.index.max()).astype(np.uint8) * 255).save(tmp_path / "m.png")
    pictures = [o for n, f in (("character", "c"), ("garment", "g"), ("mask", "m")) for o in (f"--{n}", f"{f}.png")]
    pictures = [str(tmp_path / o) if o.endswith(".png") else o for o in pictures]
    trained = ["--sd", str(tmp_path / "sd"), "--control", str(tmp_path / "run" / "controlnet")]
    out = tmp_path / "o.png"
    assert main(["phase2", *trained, *pictures, "--steps", "1", "--out", str(out)]) == 0
    assert "was trained for phase" not in capsys.readouterr().err
    asked = ["--steps", "1", "--out", str(tmp_path / "p.png"), "--classes", "top"]
    assert main(["phase2", *trained, *pictures, *asked]) == 2
    assert "--classes tells the detector what to look for, and with --mask it is not asked" in capsys.readouterr().err
    assert main(["phase2", *trained[:-1], str(tmp_path / "start"), *pictures, "--steps", "1", "--out", str(out)]) == 0
    assert "was trained for phase 1 and has never seen a garment" in capsys.readouterr().err
    assert ControlNet.load(tmp_path / "run" / "controlnet", unet=sd.unet).phase == 2
    assert Image.open(out).size == (128, 128)
    assert Path(tmp_path / "run" / "sheet-00000001.png").exists()


def test_the_uncertainty_of_an_outfit_is_that_of_the_character(sd, control, tmp_path, monkeypatch):
    """And not that of what is half dressed."""
    asked = []
    made = phase2.Result(picture((32, 32)), Image.new("L", (32, 32), 255), "", 0)
    monkeypatch.setattr(phase2, "generate", lambda *_, uncertainty, **__: asked.append(uncertainty) or made)
    garments = [dolls.draw(4).flat(slot) for slot in ("bottom", "top")]
    options = {"uncertainty": tmp_path / "u.png"}
    phase2.in_turn(sd, control, picture((32, 32)), garments, ClothingDetector([4], heads=1), 0, **options)
    assert asked == [tmp_path / "u.png", None]
