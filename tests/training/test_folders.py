"""The user's own folders: drawings for the VAE, and for phase 2 characters in the garments that are shown alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import minicc
from minicc.cli import main
from minicc.data import dolls
from minicc.data.folder import PictureFolder
from minicc.data.samples import CLASSES
from minicc.data.tensors import to_tensor
from minicc.errors import PictureError
from minicc.models.controlnet import ControlNet
from minicc.models.tokenizer import fitting, tokenize
from minicc.models.vocabulary import FILE, known_words, words_in
from minicc.outfit.garment import garment_picture
from minicc.small import small_controlnet
from minicc.training import commands
from minicc.training.data import Painted
from minicc.training.encode import images_of
from minicc.training.folders import FolderParts, FolderPictures, WornFolder, WornPictures
from minicc.weights.export import save_vae
from minicc.weights.load import load_vae

N, SIDE = 4, 128
pytestmark = pytest.mark.filterwarnings("ignore:.*metadata")  # the reports, which two tests read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dolls in two outfits; of the last only one, and of the last but one a garment is missing."""
    root = dolls.export(tmp_path_factory.mktemp("pairs"), [dolls.draw(i) for i in range(N)], layout="pairs")
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text("utf-8").splitlines()]
    for i, row in enumerate(rows):
        row["garment_b_text"] = f"garment {i}"
    del rows[-2]["garment_a"], rows[-1]["person_b"], rows[-1]["mask_b"]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return root


@pytest.fixture(scope="module")
def worn(folder):
    return WornPictures(folder, SIDE)


def opened(folder, name: str) -> torch.Tensor:
    return to_tensor(Image.open(folder / name).convert("RGB"))[0]


def test_what_is_learned_is_the_character_in_the_garment(folder, worn):
    assert len(worn) == 2 * (N - 1) - 1
    row = json.loads((folder / "metadata.jsonl").read_text("utf-8").splitlines()[0])
    there, back = worn[0], worn[1]
    assert torch.equal(there["image"], opened(folder, row["person_b"]))
    assert torch.equal(back["image"], opened(folder, row["person_a"]))
    flat = garment_picture(Image.open(folder / row["garment_b"]), SIDE)
    assert torch.equal(there["garment"], to_tensor(flat)[0])
    assert (there["caption"], back["caption"]) == ("garment 0", row["garment_a_text"])


def test_the_mask_is_where_clothes_change_in_either_outfit(folder, worn):
    row = json.loads((folder / "metadata.jsonl").read_text("utf-8").splitlines()[0])
    number = CLASSES.index(row["changed"])
    both = [np.asarray(Image.open(folder / row[f"mask_{x}"])) == number for x in "ab"]
    assert np.array_equal(worn[0]["mask"][0].numpy() > 0, both[0] | both[1])
    assert torch.equal(worn[0]["mask"], worn[1]["mask"])


def test_only_the_kinds_that_change_are_masked(folder, tmp_path):
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    row = json.loads(lines[0]) | {"changed": ["shoes"]}
    for name in (value for key, value in row.items() if key.startswith(("person", "mask", "garment_a", "garment_b"))):
        if (folder / name).is_file():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), "utf-8")
    shoes = [np.asarray(Image.open(folder / row[f"mask_{x}"])) == 4 for x in "ab"]
    assert np.array_equal(WornPictures(tmp_path, SIDE)[0]["mask"][0].numpy() > 0, shoes[0] | shoes[1])


def test_samples_without_a_garment_or_a_second_picture_are_named(worn, folder):
    left_out = " ".join(worn.report.dropped.values())
    assert "no picture of the character in that garment" in left_out
    assert "no picture of a garment" in left_out
    assert not PictureFolder(folder, SIDE).report.dropped, "phase 1 needs neither"


def test_a_training_writes_down_every_file_that_it_leaves_out(folder, tmp_path, monkeypatch):
    """The warning sums up; OUT/report-FOLDER.txt names them all."""
    monkeypatch.setattr(commands, "train", lambda *_: 0.0)
    options = ["--device", "cpu", "--steps", "1", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    assert main(["train", "phase2", "--data", str(folder), *options]) == 0
    written = (tmp_path / "run" / f"report-{folder.parent.name}-{folder.name}.txt").read_text("utf-8")
    report = WornPictures(folder, SIDE).report
    assert report.dropped
    assert all(f"{name} left out: {why}" in written for name, why in report.dropped.items())


def test_a_folder_of_pictures_alone_is_refused_with_what_is_missing(tmp_path):
    dolls.export(tmp_path, [dolls.draw(0)])
    with pytest.raises(PictureError, match=r"no picture of a garment.*\n.*garment and a target"):
        WornPictures(tmp_path, SIDE)


def test_garments_vary_with_the_position_and_only_with_it(worn):
    latents, context = torch.zeros(len(worn), 2, 4, 16, 16), torch.zeros(len(worn), 77, 8)
    data = WornFolder(worn, latents, context, seed=0)
    assert torch.equal(data[0, 5]["garment"], data[0, 5]["garment"])
    assert not torch.equal(data[0, 5]["garment"], data[0, 6]["garment"])
    assert not torch.equal(data[0, 5]["mask"], data[0, 6]["mask"])


def test_the_vae_sees_characters_and_a_quarter_garments(folder):
    data = FolderPictures(PictureFolder(folder, SIDE), seed=0)
    flats = [garment_picture(Image.open(s.garment), SIDE) if s.garment else None for s in data.pictures.samples]
    known = [to_tensor(flat)[0] if flat else None for flat in flats]
    alone = 0
    for position in range(200):
        index = position % len(data)
        sample, flat = data[index, position], known[index]
        if flat is not None and any(torch.equal(x, flat) for x in (sample["image"], sample["image"].flip(-1))):
            alone += 1
            assert torch.equal(sample["clothes"][0], (sample["image"] < 1).any(0))
    assert 0.15 < alone / 200 < 0.35


def test_the_detector_learns_what_a_garment_is_from_samples_that_change_one_kind_only(folder):
    pictures = PictureFolder(folder, SIDE, needs=("mask",))
    pictures.samples = [
        replace(s, changed=("dress",) if i < 2 else ("top", "bottom")) for i, s in enumerate(pictures.samples)
    ]
    flats = [to_tensor(garment_picture(Image.open(s.garment), SIDE))[0] for s in pictures.samples[:2]]
    known = [*flats, *(flat.flip(-1) for flat in flats)]
    data, bare, alone = FolderParts(pictures, 0, flats=0.25), FolderParts(pictures, 0), 0
    for position in range(60):
        sample = data[position % N, position]
        if any(torch.equal(sample["image"], flat) for flat in known):
            alone += 1
            assert set(sample["index"].unique().tolist()) == {0, CLASSES.index("dress")}
            assert (sample["index"] > 0)[(sample["image"] < 0.9).any(0)].all(), "all of it"
        else:
            assert torch.equal(sample["index"], bare[position % N, position]["index"])
    assert 0.1 < alone / 60 < 0.4
    pictures.samples = pictures.samples[2:]
    assert FolderParts(pictures, 0, flats=0.25).flats == 0


def test_phase_2_trains_on_a_folder(sd, folder, tmp_path, capsys):
    sd.save(tmp_path / "sd")
    small_controlnet(sd).save(tmp_path / "start")
    options = f"--sd {tmp_path / 'sd'} --control {tmp_path / 'start'} --data {folder} --size 32".split()
    options += ["--steps", "2", "--batch", "2", "--device", "cpu", "--cache", str(tmp_path / "cache")]
    assert main(["train", "phase2", *options, "--held-out", str(folder), "--out", str(tmp_path / "run")]) == 0
    name = f"{folder.parent.name}-{folder.name}-worn-32.safetensors"
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {f"latents-{name}", f"captions-{name}"}
    before, after = (ControlNet.load(path).state_dict() for path in (tmp_path / "start", tmp_path / "run/controlnet"))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert main(["train", "phase2", *options, "--supervise", "0.1", "--out", str(tmp_path / "no")]) == 2
    assert "--data does not tell" in capsys.readouterr().err


def test_a_base_learns_a_folders_characters_and_words(sd, folder, tmp_path, capsys):
    sd.save(tmp_path / "sd", dtype=torch.float16)
    (tmp_path / "sd/tokenizer" / FILE).write_text("a\nzebra\n")
    options = f"--data {folder} --size 32 --device cpu --steps 2 --batch 2 --cache {tmp_path / 'cache'}".split()
    asked = [*options, "--sd", str(tmp_path / "sd"), "--out", str(tmp_path / "run")]
    assert main(["train", "base", *asked]) == 0
    before, after = (minicc.load(path, device="cpu") for path in (tmp_path / "sd", tmp_path / "run/sd"))
    for part, learns in (("unet", True), ("text_encoder", True), ("vae", False)):
        old, new = (getattr(one, part).state_dict() for one in (before, after))
        assert any(not torch.equal(old[key], new[key]) for key in old) is learns, part
    captions = [sample.caption for sample in PictureFolder(folder, 32).samples]
    assert set(known_words(after.tokenizer_source)) == {"a", "zebra"} | {w for c in captions for w in words_in(c)}
    assert main(["train", "base", *options, "--out", str(tmp_path / "no")]) == 2
    assert "say which with --sd" in capsys.readouterr().err
    assert main(["train", "reader", *options, "--out", str(tmp_path / "no")]) == 2
    assert "learns from paper dolls alone" in capsys.readouterr().err


def test_a_base_reads_beside_each_picture_its_own_words_as_far_as_they_fit(sd, folder, tmp_path, monkeypatch, capsys):
    """And the held-out folder is another one, seen as it is drawn."""
    root = dolls.export(tmp_path / "own", [dolls.draw(i) for i in range(3)])
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text("utf-8").splitlines()]
    rows[1]["text"] += " with a scarf" * 99 + " and a xylophone"
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sd.save(tmp_path / "sd", dtype=torch.float16)
    (tmp_path / "sd/tokenizer" / FILE).write_text("a\n")
    learned = []
    monkeypatch.setattr(commands, "train", lambda stage, data, config, held_out: learned.extend((data, held_out)))
    options = f"--data {root} --held-out {folder} --size 32 --device cpu --cache {tmp_path / 'cache'}".split()
    asked = ["train", "base", *options, "--sd", str(tmp_path / "sd"), "--out", str(tmp_path / "run")]
    assert main(asked) == 0
    assert "1 captions are too long" in capsys.readouterr().err
    (data, held_out), pictures = learned, PictureFolder(root, 32)
    loaded = minicc.load(tmp_path / "sd", device="cpu")
    for i, sample in enumerate(pictures.samples):
        assert torch.equal(data.ids[i, 0], tokenize(loaded.tokenizer, [fitting(loaded.tokenizer, sample.caption)])[0])
        image = pictures[i]["image"]
        with torch.no_grad():
            both = torch.cat([loaded.encode_image(x[None]) for x in (image, image.flip(-1))])
        torch.testing.assert_close(data.latents[i].float(), both, atol=2e-3, rtol=2e-3)
        assert data[i, 0]["name"] == sample.name
    assert held_out.latents.shape[:2] == (len(PictureFolder(folder, 32)), 1)
    known = known_words(tmp_path / "run/sd/tokenizer")
    assert "scarf" in known
    assert "xylophone" not in known
    pictures.samples[1] = replace(pictures.samples[1], image=tmp_path / "gone.png")
    with pytest.warns(UserWarning, match="is skipped"), pytest.raises(PictureError, match="number 1 can no longer be"):
        list(images_of(pictures, "encoding pictures"))
    assert main(["train", "base", "--held-out", str(folder), "--out", str(tmp_path / "no")]) == 2


def test_a_decoder_learns_a_folders_style_and_takes_the_models_place(sd, folder, tmp_path):
    save_vae(sd.vae, tmp_path / "vae")
    options = f"--vae {tmp_path / 'vae'} --decoder-only --data {folder} --size 32 --device cpu".split()
    assert main(["train", "vae", *options, "--steps", "2", "--batch", "2", "--out", str(tmp_path / "run")]) == 0
    old, new = load_vae(tmp_path / "vae"), load_vae(tmp_path / "run/vae")
    assert new.config == old.config
    moved = {k.split(".")[0] for k, v in new.state_dict().items() if not torch.equal(v, old.state_dict()[k])}
    assert moved == {"decoder", "post_quant_conv"}
    sd.save(tmp_path / "sd")
    loaded = minicc.load(tmp_path / "sd", device="cpu", vae=tmp_path / "run/vae")
    assert all(torch.equal(v, new.state_dict()[k]) for k, v in loaded.vae.state_dict().items())
    assert not any(p.requires_grad for p in loaded.vae.parameters())
    pictures = [tmp_path / "own.png", tmp_path / "other.png"]
    for path, more in zip(pictures, ([], ["--vae", str(tmp_path / "run/vae")]), strict=True):
        asked = ["--sd", str(tmp_path / "sd"), "--prompt", "a doll", "--steps", "2", "--device", "cpu"]
        assert main(["generate", *asked, "--out", str(path), *more]) == 0
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_where_a_file_breaks_the_latents_and_the_words_are_those_of_the_picture_in_its_place(tmp_path):
    root = dolls.export(tmp_path / "own", [dolls.draw(i) for i in range(3)])
    pictures = PictureFolder(root, 64)
    numbers = torch.arange(3.0)
    data = Painted(pictures, numbers.view(3, 1, 1, 1, 1), numbers.view(3, 1, 1), seed=0)
    broken = pictures.samples[1]
    Path(broken.image).write_bytes(b"no picture any more")
    with pytest.warns(UserWarning, match="is skipped"):
        sample = data[1, 0]
    assert (sample["name"], sample["latents"].item(), sample["context"].item()) == (pictures.samples[2].name, 2, 2)
    with pytest.warns(UserWarning, match="is skipped"):
        assert FolderParts(pictures, seed=0)[1, 0]["name"] == pictures.samples[2].name
    with pytest.warns(UserWarning, match="is skipped"):
        assert FolderPictures(pictures, seed=0, flats=0)[1, 0]["name"] == pictures.samples[2].name
