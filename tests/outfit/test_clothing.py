"""Finding the clothes: features of locked models, heads that learn from few labels, and the mask that comes of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minicc.cli import main
from minicc.data import dolls
from minicc.data.dolls.dataset import COLOURS
from minicc.data.samples import CLASSES
from minicc.data.tensors import on_white, to_tensor
from minicc.errors import Error, PictureError
from minicc.evaluation import detector as evaluation
from minicc.evaluation.base import pictures
from minicc.evaluation.bench import random_stable_diffusion
from minicc.evaluation.detector import class_ious, clothes_iou, colour_curve, parts_of, told_by_colour
from minicc.evaluation.metrics import iou
from minicc.outfit.clothing import Clothes, ClothingDetector, features, looking
from minicc.outfit.detect import clothing_mask, detect, unfamiliar
from minicc.outfit.editing import edited
from minicc.outfit.garment import garment_picture
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training.detector_stage import DetectorStage, Parts, at, centres, fit, laid
from minicc.training.draws import Draws


@pytest.fixture(scope="module")
def sd():
    """Small and random, as if trained on pictures of 64 × 64."""
    sd = small_stable_diffusion()
    sd.unet.config = replace(sd.unet.config, sample_size=8)
    return sd


@pytest.fixture(scope="module")
def trained(sd) -> ClothingDetector:
    """Two dolls' labels, read off the features of random models: even those tell colours and edges apart."""
    two = [dolls.draw(i, size=64) for i in range(2)]
    return fit(lambda x: features(sd, x), pictures(two), parts_of(two), seed=0, steps=300)


def test_features_have_a_map_as_fine_as_the_picture_and_do_not_depend_on_the_batch(sd):
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both, second = features(sd, x), features(sd, x[1:])
    assert both[0].shape[-2:] == (32, 48)
    assert len(both) == len(sd.vae.config.block_out_channels) + 1 + len(sd.unet.up_blocks)
    for a, b in zip(both, second, strict=True):
        torch.testing.assert_close(a[1:], b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_heads_read_models_of_stable_diffusion_1_5s_size():
    """Random weights: the same functions, unchanged; two dolls are learned and found again."""
    full, two = random_stable_diffusion("full"), [dolls.draw(i, size=128) for i in range(2)]
    assert not full.knows_one_size
    detector = fit(looking(full), pictures(two), parts_of(two), seed=0, steps=200)
    assert detector.channels[0] == 128  # the VAE encoder's first level
    assert detector.channels[-1] == 320  # the U-Net decoder's last
    for doll in two:
        found = detector.find(full, doll.image.resize((256, 192)))
        assert found.index.shape == (192, 256)
    again = detector.probabilities(looking(full), pictures(two)).argmax(1)
    assert clothes_iou(again, parts_of(two)) > 0.6


def counted(module: torch.nn.Module, calls: list[str], name: str):
    """Write the name down at every call; returns what undoes it."""
    return module.register_forward_hook(lambda *_: calls.append(name))


def test_each_picture_goes_through_the_encoder_once_and_in_training_the_empty_sentence_once_in_all(sd, trained):
    calls: list[str] = []
    parts = {"vae": sd.vae.encoder.conv_in, "text": sd.text_encoder, "unet": sd.unet.conv_in}
    hooks = [counted(module, calls, name) for name, module in parts.items()]
    for _ in range(3):
        trained.find(sd, dolls.draw(0, size=64).image)
    assert {name: calls.count(name) for name in parts} == {"vae": 3, "text": 3, "unet": 3}
    calls.clear()
    stage = DetectorStage(sd, trained)
    batch = {"image": torch.zeros(2, 3, 64, 64), "index": torch.ones(2, 64, 64, dtype=torch.uint8)}
    for step in range(3):
        stage(batch, Draws.at(0, step))
    assert {name: calls.count(name) for name in parts} == {"vae": 3, "text": 1, "unet": 3}
    for hook in hooks:
        hook.remove()


def test_the_validation_sheet_shows_pictures_labels_and_what_is_found(sd, trained):
    """Of the doll that was learned: the third row is the second but for a tenth."""
    two = [dolls.draw(i, size=64) for i in range(2)]
    shown = [{"image": x, "index": y} for x, y in zip(pictures(two), parts_of(two), strict=True)]
    assert DetectorStage(sd, trained).sheet() is None
    sheet = np.asarray(DetectorStage(sd, trained, shown=shown).sheet())
    assert sheet.shape == (3 * 64, 2 * 64, 3)
    pictured, labelled, found = sheet[:64], sheet[64:128], sheet[128:]
    assert np.array_equal(pictured[:, :64], np.asarray(on_white(two[0].image)))
    assert np.array_equal(labelled[:, :64], np.array(COLOURS, np.uint8)[two[0].index])
    assert (labelled == found).all(-1).mean() > 0.9


def test_features_are_the_encoders_levels_and_a_u_nets_look_at_its_latents(sd):
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    levels, q = sd.vae.encode_levels(x)
    assert torch.equal(sd.vae.config.scaling_factor * q.mean, sd.encode_image(x))
    assert all(torch.equal(a, b) for a, b in zip(levels, sd.vae.encoder.levels(x), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(levels, features(sd, x), strict=False))
    empty = sd.encode_text([""])
    assert all(torch.equal(a, b) for a, b in zip(features(sd, x), features(sd, x, empty=empty), strict=True))


def test_a_detector_looks_with_the_models_that_it_is_given(sd, trained):
    """Not with those of the last picture."""
    other, picture = small_stable_diffusion(seed=1), dolls.draw(0, size=64).image
    other.unet.config = sd.unet.config
    first, second = (trained.find(models, picture).probabilities for models in (sd, other))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, trained.find(sd, picture).probabilities)


def test_a_picture_and_its_mirror_image_are_found_alike(sd, trained):
    picture = dolls.draw(0, size=64).image
    own, mirrored = (trained.find(sd, x).probabilities for x in (picture, ImageOps.mirror(picture)))
    np.testing.assert_allclose(own, mirrored[..., ::-1], atol=1e-5)


def test_heads_learn_their_labels_and_know_more_than_chance_of_another_doll(sd, trained):
    seen, other = dolls.draw(0, size=64), dolls.draw(7, size=64)
    for doll, least in ((seen, 0.9), (other, 0.4)):
        found = trained.find(sd, doll.image).index
        assert clothes_iou(*(torch.from_numpy(x)[None] for x in (found, doll.index))) > least


def test_what_is_found_fits_a_picture_of_any_size_and_mode(sd, trained):
    found = trained.find(sd, Image.new("RGBA", (50, 37), (250, 20, 20, 128)))
    assert found.index.shape == found.uncertainty.shape == (37, 50)
    assert 0 <= found.uncertainty.min() <= found.uncertainty.max() <= 1
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


def test_a_detector_is_the_same_after_saving(sd, trained, tmp_path):
    picture = dolls.draw(3, size=64).image
    again = ClothingDetector.load(trained.save(tmp_path / "detector"))
    a, b = (d.find(sd, picture).probabilities for d in (trained, again))
    assert abs(a - b).max() < 0.02  # half precision


def test_while_no_detector_ships_its_name_says_how_to_train_one(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("minicc.outfit.clothing.SHIPPED", tmp_path)
    with pytest.raises(Error, match=r"ships no trained clothing detector yet .*`minicc train detector"):
        ClothingDetector.load("tiny")
    trained.save(tmp_path / "tiny-detector")
    assert ClothingDetector.load("tiny").channels == trained.channels


def test_what_is_no_detector_is_named(tmp_path):
    with pytest.raises(Error, match="no clothing detector"):
        ClothingDetector.load(tmp_path)


def test_a_detector_of_another_model_is_refused_in_words(sd):
    with pytest.raises(Error, match="minicc train detector"):
        ClothingDetector([3, 5]).find(sd, Image.new("RGB", (32, 32)))


def test_only_the_heads_learn(sd):
    maps = features(sd, torch.zeros(1, 3, 32, 32))
    stage = DetectorStage(sd, ClothingDetector([m.shape[1] for m in maps], heads=2))
    batch = {"image": torch.zeros(2, 3, 32, 32), "index": torch.ones(2, 32, 32, dtype=torch.uint8)}
    stage(batch, Draws.at(0, 0)).backward()
    assert all(p.grad is not None for p in stage.detector.heads.parameters())
    assert not [p for m in (sd.unet, sd.vae) for p in m.parameters() if p.grad is not None]


def test_a_map_read_at_a_place_is_the_enlarged_map_there():
    m = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(m, (8, 8), mode="bilinear")
    centres = (torch.arange(8) + 0.5) / 4 - 1
    where = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).view(1, 64, 1, 2).expand(2, -1, -1, -1)
    torch.testing.assert_close(at(m, where)[..., 0].view(2, 3, 8, 8), large)


def test_a_garment_alone_is_shown_to_the_detector_as_it_is_asked_about_it():
    doll = dolls.draw(0, size=64)
    garment = doll.flat(doll.slots[0])
    flat = torch.from_numpy(np.array(garment.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(laid(flat), to_tensor(garment_picture(garment, 64))[0])
    worn = {"flat": flat[None], "slot": torch.tensor([1])}
    sample = Parts({"image": flat[None], "index": torch.zeros(1, 64, 64)}, 0, worn, flats=1.0)[0, 0]
    assert any(torch.equal(sample["image"], picture) for picture in (laid(flat), laid(flat).flip(-1)))
    assert set(sample["index"].unique().tolist()) == {0, 1}


def test_points_are_the_middles_of_pixels_where_maps_and_labels_are_exact():
    index = torch.arange(6 * 4).view(1, 1, 6, 4)  # (B, 1, H, W), each pixel its own number
    u = torch.rand(1, 500, 1, 2, generator=torch.Generator().manual_seed(0))
    where = centres(u, (6, 4))
    exact = index[0, 0, (6 * u[0, :, 0, 1]).long(), (4 * u[0, :, 0, 0]).long()]
    for mode in ("nearest", "bilinear"):
        torch.testing.assert_close(at(index.float(), where, mode)[0, 0, :, 0], exact.float(), rtol=0, atol=1e-4)
    assert exact.unique().numel() == 24


def test_without_part_labels_skin_and_hair_may_be_called_what_they_are(sd):
    stage = DetectorStage(sd, ClothingDetector([1]), parts=False)
    hair = torch.full((1, 8, 2, 2), -20.0)
    hair[:, CLASSES.index("hair")] = 20
    none = torch.zeros(1, 2, 2, dtype=torch.long)
    assert stage.loss(hair, none).item() == pytest.approx(0, abs=1e-4)
    assert stage.loss(hair, none + CLASSES.index("hair")).item() == pytest.approx(0, abs=1e-4)  # where labels tell it
    assert stage.loss(hair, none + CLASSES.index("skin")).item() > 10
    stage.parts = True
    assert stage.loss(hair, none).item() > 10


def test_the_mask_has_its_holes_filled_and_leaves_hair_and_skin_alone():
    index = np.zeros((20, 20), np.uint8)
    index[4:16, 4:16] = CLASSES.index("top")
    index[9, 9] = 0  # a hole
    index[2, 18] = CLASSES.index("shoes")  # a spot
    index[4:16, 16] = CLASSES.index("hair")
    index[4:16, 3] = CLASSES.index("skin")
    index[17:19, 4:16] = CLASSES.index("bottom")
    mask = clothing_mask(Clothes.certain(index), grow=1)
    assert mask[9, 9]
    assert mask[3, 8]
    assert not mask[2, 18]
    assert not mask[4:16, [3, 16]].any()
    assert mask[17:19, 4:16].all()
    assert not clothing_mask(Clothes.certain(index), ["top"])[17:19].any()
    assert clothing_mask(Clothes.certain(index), ["top"], grow=-1).sum() == 10 * 10


def test_where_nothing_is_found_an_error_says_so_and_the_uncertainty_is_there(sd, tmp_path):
    class Blind(ClothingDetector):
        def find(self, *_: object) -> Clothes:
            return Clothes.certain(np.zeros((8, 8), np.uint8))

    out, unsure = tmp_path / "m.png", tmp_path / "u.png"
    with pytest.raises(PictureError, match="no top found"):
        detect(sd, Blind([1]), Image.new("RGB", (8, 8)), out, ["top"], uncertainty=unsure)
    assert unsure.exists()
    assert not out.exists()
    with pytest.raises(Error, match="there is no class 'trousers'"):
        Clothes.certain(np.ones((8, 8), np.uint8)).layer("trousers")
    for name in ("trousers", "skin", "none"):  # what is no clothes is no mask of clothes either
        with pytest.raises(PictureError, match=f"there is no class of clothes '{name}'; expected some of top, bottom"):
            clothing_mask(Clothes.certain(np.ones((8, 8), np.uint8)), [name])
    with pytest.raises(PictureError, match="nothing of top is left after shrinking by 9 pixels"):
        clothing_mask(Clothes.certain(np.ones((8, 8), np.uint8)), ["top"], grow=-9)


def test_a_figure_as_uncertain_as_what_was_never_learned_is_doubted():
    index = np.eye(8, dtype=np.uint8)
    for uncertainty, doubted in ((0.22, False), (0.26, True)):  # the most of dolls, the least of artists' so far
        clothes = replace(Clothes.certain(index), uncertainty=np.where(index > 0, uncertainty, 0.9))
        assert bool(unfamiliar(clothes)) == doubted
    assert unfamiliar(Clothes.certain(np.zeros((8, 8), np.uint8))) == []


def test_detect_says_that_it_sees_two_figures_and_is_unsure(sd, tmp_path):
    class Unsure(ClothingDetector):
        def find(self, *_: object) -> Clothes:
            index = np.zeros((24, 24), np.uint8)
            index[4:20, 2:10], index[4:20, 14:22] = 1, 1
            return replace(Clothes.certain(index), uncertainty=np.full((24, 24), 0.5, np.float32))

    with pytest.warns(UserWarning, match="2 figures|unsure") as said:
        detect(sd, Unsure([1]), Image.new("RGB", (24, 24)), tmp_path / "m.png")
    assert [str(one.message).split(":")[0] for one in said] == [
        "the picture shows 2 figures", "the detector is unsure of this picture, unlike what it has learned"
    ]  # fmt: skip


def test_parts_are_written_where_there_are_no_clothes_and_nothing_where_there_is_nobody(sd, tmp_path):
    class Sees(ClothingDetector):
        def find(self, *_: object) -> Clothes:
            return Clothes.certain(index)

    index = np.zeros((24, 24), np.uint8)
    index[4:20, 8:16] = CLASSES.index("skin")
    detect(sd, Sees([1]), Image.new("RGB", (24, 24)), tmp_path / "p.png", parts=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), index)
    index[:] = 0
    with pytest.raises(PictureError, match="no clothes found"):
        detect(sd, Sees([1]), Image.new("RGB", (24, 24)), tmp_path / "q.png", parts=True)
    assert not (tmp_path / "q.png").exists()


def test_a_mask_grown_or_shrunk_beyond_any_picture_is_all_or_nothing():
    dot = np.zeros((6, 5), bool)
    dot[3, 2] = True
    assert edited(dot, grow=2**40).all()
    assert not edited(dot, grow=-(2**40)).any()


def test_a_mask_of_another_size_to_leave_out_is_an_error():
    with pytest.raises(PictureError, match="same height, width"):
        edited(np.ones((4, 4), bool), without=np.ones((4, 5), bool))


def test_detect_writes_a_mask_that_phase_1_takes(sd, trained, tmp_path):
    sd.save(tmp_path / "sd")
    trained.save(tmp_path / "detector")
    dolls.draw(0, size=64).image.save(tmp_path / "c.png")
    files = ["--sd", str(tmp_path / "sd"), "--detector", str(tmp_path / "detector")]
    assert main(["detect", *files, "--character", str(tmp_path / "c.png"), "--out", str(tmp_path / "m.png")]) == 0
    mask = Image.open(tmp_path / "m.png")
    assert (mask.mode, mask.size) == ("L", (64, 64))
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    small_controlnet(sd).save(tmp_path / "control")
    dolls.draw(0, size=64).flat("shoes").save(tmp_path / "g.png")
    given = [f"--{name}={tmp_path / file}" for name, file in {"character": "c.png", "mask": "m.png"}.items()]
    given += ["--sd", str(tmp_path / "sd"), "--control", str(tmp_path / "control"), "--steps", "1"]
    for command in (["phase1", "--prompt", "a red dress"], ["phase2", "--garment", str(tmp_path / "g.png")]):
        assert main([*command, *given, "--out", str(tmp_path / "o.png")]) == 0
        before, after = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("c.png", "o.png"))
        assert np.array_equal(before[np.asarray(mask) == 0], after[np.asarray(mask) == 0])


def test_where_nothing_is_found_the_commands_say_so_and_show_where_they_were_unsure(sd, trained, tmp_path, capsys):
    sd.save(tmp_path / "sd")
    trained.save(tmp_path / "detector")
    small_controlnet(sd).save(tmp_path / "control")
    Image.new("RGB", (64, 64), "white").save(tmp_path / "c.png")
    dolls.draw(0, size=64).flat("shoes").save(tmp_path / "g.png")
    files = ["--sd", str(tmp_path / "sd"), "--detector", str(tmp_path / "detector")]
    files += ["--character", str(tmp_path / "c.png"), "--classes", "bottom"]
    worn = ["phase2", "--garment", str(tmp_path / "g.png"), "--control", str(tmp_path / "control")]
    for command, name in ((["detect"], "m"), (worn, "o")):
        assert main([*command, *files, "--out", str(tmp_path / f"{name}.png")]) == 2
        doubts = tmp_path / f"{name}-uncertainty.png"
        said = capsys.readouterr().err
        assert f"no bottom found in the picture: paint a mask by hand; {doubts} shows where" in said
        assert Image.open(doubts).size == (64, 64)
        assert not (tmp_path / f"{name}.png").exists()


def test_iou_by_hand():
    a, b = torch.zeros(1, 2, 4, dtype=torch.uint8), torch.zeros(1, 2, 4, dtype=torch.uint8)
    a[0, 0, :2], b[0, 0, 1:4] = 1, 2
    assert clothes_iou(a, b) == pytest.approx(1 / 4)
    assert class_ious(a, b)["top"] == 0
    assert iou(a == 7, b == 7) == 1


def test_where_colours_alone_tell_clothes_k_means_finds_them_and_where_they_tell_nothing_it_does_not(monkeypatch):
    """Pictures of two colours: clothes are red, or any of both."""
    told = torch.zeros(2, 8, 8, dtype=torch.uint8)
    told[:, :, 4:] = 1
    images = torch.where(told[:, None] > 0, torch.tensor([0.8, -0.9, -0.9]).view(3, 1, 1), torch.tensor(0.5))
    monkeypatch.setattr(evaluation, "pictures", lambda dolls: images[: len(dolls)])
    monkeypatch.setattr(evaluation, "COLOURS", 2)
    for parts, least, most in ((told, 1.0, 1.0), (torch.rot90(told, 1, (1, 2)), 0.0, 0.7)):
        monkeypatch.setattr(evaluation, "parts_of", lambda dolls, parts=parts: parts[: len(dolls)])
        curve = colour_curve(images, parts, [1, 2])
        assert list(curve) == ["1", "2"]
        assert all(least <= iou <= most for iou in curve.values())
    found = told_by_colour(images, [2])["2"]
    assert found.shape == told.shape
    assert (found == told).float().mean() == 0.5  # the last labels, which colours do not tell


def test_train_detect_and_evaluate_from_the_command_line(sd, tmp_path, capsys):
    sd.save(tmp_path / "sd")
    model = ["--sd", str(tmp_path / "sd"), "--device", "cpu"]
    options = ["--dolls", "4", "--cache", str(tmp_path / "cache"), "--steps", "2", "--batch", "2"]
    assert main(["train", "detector", *model, *options, "--out", str(tmp_path / "run")]) == 0
    detector = ["--detector", str(tmp_path / "run" / "detector")]
    assert (
        main(
            ["evaluate", "detector", *model, *detector, "--n", "2", "--labels", "1", "--json", str(tmp_path / "f.json")]
        )
        == 0
    )
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {"clothes_iou", "miou", "kind", "kinds", "labels", "miou_labels", "baselines"} <= set(figures)
    assert set(figures["baselines"]["labels"]) == {"random", "pixels", "colours", "words"}
    assert set(figures["baselines"]["miou_labels"]) == {"random", "pixels", "colours"}
    assert set(figures["labels"]) == set(figures["miou_labels"]) == {"1"}
    assert all(0 <= v <= 1 for v in (figures["clothes_iou"], figures["miou"], *figures["labels"].values()))
    dolls.draw(0, size=64).image.save(tmp_path / "doll.png")
    asking = ["detect", *model, *detector, "--character", str(tmp_path / "doll.png"), "--out"]
    for out, words in (("o.jpg", "write one of .png"), ("o.webp", "WebP knows no palette")):
        assert main([*asking, str(tmp_path / out), "--parts"]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / out).exists()
    further = ["--lr", "1e-4", "--out", str(tmp_path / "further")]  # few small steps away from it
    assert main(["train", "detector", *model, *detector, *options, *further]) == 0
    before, after = (ClothingDetector.load(tmp_path / run / "detector").state_dict() for run in ("run", "further"))
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
