"""Clothes of characters by artists, and clothes found by words alone."""

import json

import pytest
import torch

from minicc.cli import main
from minicc.data import dolls
from minicc.evaluation.art import spread
from minicc.evaluation.detector import contenders
from minicc.evaluation.detector_art import measures
from minicc.evaluation.words import best_threshold, clothes_maps, enlarged, places, words_curve
from minicc.outfit.clothing import ClothingDetector, features
from minicc.small import small_stable_diffusion


def test_a_folder_of_two_parts_gives_figures_for_a_few_labels_and_for_all(sd, tmp_path):
    sd.save(tmp_path / "sd")
    channels = [m.shape[1] for m in features(sd, torch.zeros(1, 3, 32, 32))]
    ClothingDetector(channels, heads=1).save(tmp_path / "detector")
    for part, first, count in (("train", 0, 3), ("val", 10, 2)):
        dolls.export(tmp_path / "art" / part, [dolls.draw(first + i) for i in range(count)])
    files = ["--sd", str(tmp_path / "sd"), "--detector", str(tmp_path / "detector"), "--data", str(tmp_path / "art")]
    assert main(["evaluate", "detector", *files, "--n", "2", "--device", "cpu", "--json", str(tmp_path / "f")]) == 0
    f = json.loads((tmp_path / "f").read_text())
    assert set(f["labels"]) == set(f["miou_labels"]) == set(f["baselines"]["pixels"]) == {"3"}
    assert f["labels"]["3"] > 0.3
    assert main(["evaluate", "detector", *files[:-1], str(tmp_path / "art" / "val"), "--n", "2"]) == 2


def test_hair_and_skin_count_as_none_where_the_labels_know_no_parts():
    truth = torch.tensor([[[0, 0, 1, 1]]])
    assert measures(torch.tensor([[[6, 7, 1, 1]]]), truth) == {"clothes_iou": 1, "miou": 1}
    assert measures(torch.tensor([[[6, 7, 1, 0]]]), truth)["clothes_iou"] == 0.5


def test_the_garments_words_are_found_in_the_sentence(sd):
    assert len(places(sd, ("shirt",))) >= 1
    assert sorted({*places(sd, ("shirt",)), *places(sd, ("hat",))}) == places(sd, ("shirt", "hat"))


def test_attention_on_words_is_a_share_as_fine_as_the_picture(sd):
    maps = clothes_maps(sd, torch.zeros(2, 3, 64, 32))
    assert maps.shape == (2, 64, 32)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert enlarged(torch.ones(1, 6), torch.Size([5, 3]), torch.Size([40, 24])).shape == (1, 40, 24)


def test_the_best_threshold_separates_what_can_be_separated():
    maps, clothes = torch.tensor([[[0.1, 0.2, 0.8, 0.9]]]), torch.tensor([[[False, False, True, True]]])
    assert 0.2 <= best_threshold(maps, clothes) < 0.8


def test_words_give_a_curve_beside_the_others(sd):
    images, clothes = torch.zeros(1, 3, 128, 128), torch.ones(1, 128, 128, dtype=torch.bool)
    assert set(words_curve(sd, images, clothes, [1])) == {"1"}


@pytest.mark.parametrize(
    ("count", "n", "expected"), [(10, 3, [0, 3, 6]), (100, 60, None), (4, 9, [0, 1, 2, 3]), (6, 2, [0, 3])]
)
def test_what_is_asked_is_spread_over_the_whole_folder(count, n, expected):
    chosen = spread(range(count), n)
    assert len(set(chosen)) == len(chosen) == min(n, count)
    assert chosen == (expected or chosen)
    assert chosen[-1] >= count - 1 - count // len(chosen)


def test_the_baselines_run_in_the_models_type_and_device():
    """bfloat16 stands for what a machine without a GPU cannot show: models that are not float32 on the CPU."""
    sd = small_stable_diffusion().to("cpu", torch.bfloat16)
    images = torch.zeros(1, 3, 32, 32)
    assert all(m.isfinite().all() for maps in contenders(sd, 50).values() for m in maps(images))
    assert clothes_maps(sd, images).dtype == torch.float32
