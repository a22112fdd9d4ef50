"""What `minicc evaluate phase2` asks, and that its figures tell the garment given from another."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.cli import main
from minicc.data import dolls
from minicc.evaluation import wears as wears_module
from minicc.evaluation.outfits import outfits
from minicc.evaluation.phase2 import correspondence, cover, figures, mean_paste, reconstruction
from minicc.evaluation.wears import dressed, wears
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way
from minicc.outfit.garment import placed
from minicc.reader import AttributeReader
from minicc.training.detector_stage import fit
from minicc.training.reader_stage import save_reader
from minicc.training.tiny import seeded
from tests.evaluation.test_phase1 import Oracle

N = 6


@pytest.fixture(scope="module")
def asked():
    return wears(N, seed=0, pairs=12)


@pytest.fixture(scope="module")
def oracle(asked):
    return Oracle(*(doll for one in asked for doll in (one.before, one.after, *one.others)))


def test_doll_and_garment_are_held_out_and_only_the_garment_changes(asked):
    for one in asked:
        old, new = one.before.worn(one.slot), one.after.worn(one.slot)
        assert {(g.kind, g.colour, g.pattern) for g in (old, new)} <= dolls.HELD_OUT
        assert old != new
        assert np.array_equal(np.asarray(one.character)[~one.mask], np.asarray(one.truth)[~one.mask])
        assert not (one.worn & ~one.mask).any()


def test_others_are_of_the_same_kind_and_differ(asked):
    for one in asked:
        own, others = one.after.worn(one.slot), [doll.worn(one.slot) for doll in one.others]
        assert len(others) == 2
        assert all((g.kind, g.length) == (own.kind, own.length) and g != own for g in others)


def test_at_least_five_hundred_pairs_where_n_allows(monkeypatch):
    asked_for = []
    monkeypatch.setattr(wears_module, "wear", lambda number, others: asked_for.append(others))
    for n, pairs in ((20, 100), (100, 500), (200, 600), (500, 500)):
        asked_for.clear()
        wears(n, 0)
        assert (len(asked_for), sum(asked_for)) == (n, pairs)


def test_the_garments_pictures_place_scale_and_mirror_vary(asked):
    boxes = [placed(one.garment, 128).box for one in asked]
    assert len(set(boxes)) == N
    assert {bool(one.theta[0, 0] < 0) for one in asked} == {True, False}


def test_the_true_point_of_a_worn_cell_has_its_colour_in_the_garments_picture():
    """For plain garments, in pixels that are no outline."""
    shirt = dolls.Garment("t-shirt", "red", "plain", "long")
    for one in wears(40, seed=3, pairs=1):
        if one.slot != "top" or one.after.worn("top").pattern != "plain":
            continue
        laid = placed(one.garment, 128)
        points = one.where(laid, 8)
        known = ~np.isnan(points[..., 0])
        x, y = (points[known] * 128).astype(int).T
        seen, worn = np.asarray(laid.picture)[y, x], np.asarray(one.truth)[4::8, 4::8, :3][known]
        assert laid.shown[y, x].mean() > 0.9
        assert np.median(abs(seen.astype(int) - worn).max(-1)) < 40
        assert shirt.slot == one.slot
        return
    pytest.fail("no plain top among 40")


def test_the_truth_scores_perfectly_and_another_garment_of_the_kind_fails(asked, oracle):
    truth = [one.truth for one in asked]
    masks = [one.mask for one in asked]
    right = figures(truth, asked, masks, truth, oracle)
    perfect = {"garment": 1, "colour": 1, "pattern": 1, "delta_e": 0, "ssim": 1, "own_over_other": 1, "outside_max": 0}
    assert {name: pytest.approx(right[name]) for name in perfect} == perfect
    assert right["delta_e_raw"] == 0
    wrong = figures([one.others[0].image for one in asked], asked, masks, truth, oracle)
    assert wrong["garment"] == 1  # of the same kind
    assert wrong["own_over_other"] < 0.6
    assert wrong["delta_e"] > 5
    assert min(wrong["colour"], wrong["pattern"]) < 1


def test_an_unchanged_character_and_a_changed_background_are_seen(asked, oracle):
    truth, masks = [one.truth for one in asked], [one.mask for one in asked]
    kept = figures([one.character for one in asked], asked, masks, truth, oracle)
    assert kept["colour"] < 1
    assert kept["outside_max"] == 0
    white = [Image.new("RGBA", one.truth.size, "white") for one in asked]
    assert figures(white, asked, masks, truth, oracle)["outside_max"] > 100


def test_the_mean_is_one_colour_inside_the_mask_and_nothing_outside(asked):
    one = asked[0]
    pasted, before = np.asarray(mean_paste(one, one.mask)), np.asarray(one.character)
    assert len(np.unique(pasted[one.mask], axis=0)) == 1
    assert np.array_equal(pasted[~one.mask], before[~one.mask])


def test_the_ceiling_changes_nothing_outside_the_true_mask(sd, asked):
    one = asked[0]
    again = np.asarray(reconstruction(sd, one))
    assert np.array_equal(again[~one.mask], np.asarray(one.character)[~one.mask])
    assert (again[one.mask] != np.asarray(one.character)[one.mask]).any()


def test_cover_by_hand():
    true = np.zeros((4, 4), bool)
    true[:2] = True
    found = np.zeros((4, 4), bool)
    found[1:, :2] = True
    assert cover([found], [true]) == {"mask_covered": 2 / 8, "mask_excess": 4 / 8}


def test_even_attention_has_the_share_of_a_few_cells_and_other_ways_have_no_figure(sd, asked):
    fresh = ControlNet.from_unet(sd.unet)
    for name, p in fresh.named_parameters():
        if "attn1.to_q" in name:
            p.data.zero_()
    assert correspondence(sd, fresh, asked[:2]) == pytest.approx(4 / 512, rel=0.35)
    assert np.isnan(correspondence(sd, in_way(fresh, "canvas"), asked[:1]))


def test_where_nothing_is_found_the_character_stays(sd, control, asked):
    masks = [np.zeros_like(asked[0].mask), asked[1].mask]
    kept, made = dressed(sd, control, asked[:2], masks, "test", steps=1, guidance=1.0)
    assert kept.tobytes() == asked[0].character.tobytes()
    assert made.tobytes() != asked[1].character.tobytes()


@pytest.mark.parametrize("slots", [("top", "bottom"), ("shoes",)])
def test_of_an_outfit_all_garments_change_and_nothing_else(slots):
    for _, before, after in outfits(4, 0, slots):
        old, new = dict(before.outfit.items()), dict(after.outfit.items())
        assert {slot for slot in new if old[slot] != new[slot]} == set(slots)
        patterned = [new[slot] for slot in slots if slot != "shoes"]
        assert all((one.kind, one.colour, one.pattern) in dolls.HELD_OUT for one in patterned)


def test_evaluate_phase2_writes_every_figure(sd, control, tmp_path, capsys):
    two = [dolls.draw(i) for i in range(2)]
    from minicc.evaluation.base import pictures
    from minicc.evaluation.detector import parts_of
    from minicc.outfit.clothing import features

    fit(lambda x: features(sd, x), pictures(two), parts_of(two), 0, 30).save(tmp_path / "detector")
    save_reader(seeded(AttributeReader, 0), tmp_path / "reader")
    sd.save(tmp_path / "sd")
    control.save(tmp_path / "control")
    in_way(control, "plain").save(tmp_path / "plain")
    names = {"sd": "sd", "detector": "detector", "reader": "reader", "control": "control", "phase1": "control"}
    files = [
        word for name, file in (names | {"plain": "plain"}).items() for word in (f"--{name}", str(tmp_path / file))
    ]
    options = ["--steps", "1", "--n", "2", "--device", "cpu", "--json", str(tmp_path / "f.json")]
    assert main(["evaluate", "phase2", *files, *options]) == 0
    f = json.loads((tmp_path / "f.json").read_text())
    keys = {"garment", "colour", "pattern", "delta_e", "ssim", "own_over_other", "outside_max"}
    assert set(f["baselines"]) == {"mean", "phase1_caption", "plain_hint"}
    for part in (f, f["true_masks"], f["ceiling"], *f["baselines"].values()):
        assert keys <= set(part)
        assert part["outside_max"] == 0
    assert 0 <= f["correspondence"] <= 1
    assert set(f["outfits"]) == {"garment", "colour", "pattern", "outside_max"}
    assert f["outfits"]["outside_max"] == 0
    assert set(f["shoes"]) == {"garment", "colour", "outside_max"}
    assert f["shoes"]["outside_max"] == 0
    assert "| SSIM in the masked region |" in capsys.readouterr().out
    assert torch.isfinite(torch.tensor(f["mask_covered"]))
