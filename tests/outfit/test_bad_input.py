"""What people really give to `minicc phase1` and `phase2`: a clear error or a warning, and nothing written half."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.cli import main
from minicc.data import dolls
from minicc.data.samples import CLASSES
from minicc.data.write import check_writable, save_pictures
from minicc.errors import Error, PictureError
from minicc.models.vocabulary import known_words, save_words, unknown_words, words_in
from minicc.outfit import phase1
from minicc.outfit.clothing import Clothes
from minicc.outfit.detect import unclothed
from minicc.outfit.sheet import contact_sheet
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training.tiny import train_tokenizer
from tests.outfit.test_compose import picture, square

SIZE = (48, 40)
BOX = (12, 10, 30, 34)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Small models whose tokenizer has a list of words."""
    folder = tmp_path_factory.mktemp("models")
    sd = small_stable_diffusion()
    sd.save(folder / "sd")
    save_words(["a doll in a red dress with stripes"], folder / "sd" / "tokenizer")
    sd.save(folder / "official")
    small_controlnet(sd).save(folder / "control")
    return folder


@pytest.fixture
def redress(models, tmp_path, capsys):
    """Run the command; returns (exit status, lines on stderr without progress bars, files written)."""

    def run(character, mask, *more: str, prompt="a red dress", out="o.png", sd="sd", phase="phase1"):
        character.save(tmp_path / "in.png")
        mask.save(tmp_path / "in-mask.png")
        files = ["--character", str(tmp_path / "in.png"), "--mask", str(tmp_path / "in-mask.png")]
        options = ["--sd", str(models / sd), "--control", str(models / "control"), "--steps", "2", "--device", "cpu"]
        where = ["--out", str(tmp_path / "out" / out), "--prompt", prompt]
        if phase == "phase2":
            picture_of_garment().save(tmp_path / "garment.png")
            where = [*where[:2], "--garment", str(tmp_path / "garment.png")]
        status = main([phase, *files, *options, *where, *more])
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("minicc")]
        written = sorted(p.name for p in (tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []
        return status, lines, written

    return run


def picture_of_garment() -> Image.Image:
    """A green rectangle on white."""
    return Image.fromarray(np.where(square(SIZE, BOX)[..., None], (20, 160, 60), 255).astype(np.uint8))


def mask_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8) * 255)


MASK = mask_of(square(SIZE, BOX))
in_both_phases = pytest.mark.parametrize("phase", ["phase1", "phase2"])


@in_both_phases
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (mask_of(square((40, 48), (2, 2, 9, 9))), "mask is 40×48 but character is 48×40"),
        (mask_of(np.zeros((40, 48), bool)), "the mask is empty, nothing in it is half bright: paint white"),
        (Image.new("RGBA", SIZE, (255, 255, 255, 0)), "the mask is empty"),
    ],
)
def test_a_mask_that_cannot_be_used_is_one_line_and_nothing_is_written(redress, mask, words, phase):
    status, lines, written = redress(picture(SIZE), mask, phase=phase)
    assert status == 2
    assert words in lines[-1]
    assert written == []


INVERTED = mask_of(~square(SIZE, BOX))
INVERTED_BUST = mask_of(~square(SIZE, (6, 16, 42, 40)))  # whose clothes reach the lower border
SOFT = Image.fromarray(np.tile(np.arange(0, 240, 5, dtype=np.uint8), (40, 1)))


def sheet(paint: int) -> Image.Image:
    """A transparent sheet, painted on in a grey."""
    pixels = np.zeros((40, 48, 4), np.uint8)
    pixels[10:34, 12:30] = (paint, paint, paint, 255)
    return Image.fromarray(pixels, "RGBA")


@in_both_phases
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (mask_of(np.ones((40, 48), bool)), "covers the whole picture"),
        (INVERTED, "is it inverted? White is what changes"),
        (INVERTED_BUST, "is it inverted? White is what changes"),
        (SOFT, "of the mask is grey"),
        (sheet(0), "transparent in parts: what is not counts as painted, also black"),
    ],
)
def test_a_doubtful_mask_is_used_with_one_line_about_it(redress, mask, words, phase):
    status, lines, written = redress(picture(SIZE), mask, phase=phase)
    assert (status, written) == (0, ["o.png"])
    assert [words in line for line in lines] == [True]
    assert lines[0].startswith("minicc: note: ")


def test_a_mask_painted_on_a_transparent_sheet_needs_no_word(redress, tmp_path):
    character = picture(SIZE, "RGBA")
    status, lines, _ = redress(character, sheet(255))
    assert (status, lines) == (0, [])
    changed = np.any(np.asarray(Image.open(tmp_path / "out" / "o.png")) != np.asarray(character), axis=-1)
    assert not changed[~square(SIZE, BOX)].any()
    assert changed[square(SIZE, BOX)].mean() > 0.9


@in_both_phases
@pytest.mark.parametrize(("mode", "paper"), [("RGB", "white"), ("RGBA", (0, 0, 0, 0))])
def test_a_picture_without_clothes_is_dressed_where_the_mask_says_with_one_line_about_it(
    redress, tmp_path, mode, paper, phase
):
    status, lines, written = redress(Image.new(mode, SIZE, paper), MASK, phase=phase)
    assert (status, written) == (0, ["o.png"])
    assert ["has one colour: is it painted over the clothes?" in line for line in lines] == [True]
    changed = np.any(np.asarray(Image.open(tmp_path / "out" / "o.png")) != np.asarray(Image.new(mode, SIZE, paper)), -1)
    assert not changed[~square(SIZE, BOX)].any()
    assert changed[square(SIZE, BOX)].mean() > 0.9


def test_a_mask_over_no_clothes_is_doubted():
    p = np.zeros((len(CLASSES), 40, 48), np.float32)
    p[CLASSES.index("none")] = 1
    p[:, 10:30, 10:20] = np.eye(len(CLASSES))[CLASSES.index("top")][:, None, None]
    seen, there, elsewhere = Clothes(p, p[0]), np.zeros((40, 48), bool), np.zeros((40, 48), bool)
    there[15:20, 15:40], elsewhere[15:20, 25:40] = True, True
    assert unclothed(seen, there) == []
    assert ["no clothes are seen" in line for line in unclothed(seen, elsewhere)] == [True]


def test_what_is_given_and_what_is_written_are_never_overwritten_by_each_other(redress, tmp_path):
    before = picture(SIZE).tobytes()
    sheet = ["--sheet", str(tmp_path / "out" / "o.png")]
    for out, more, why in (
        ("../in.png", [], "it is also an input"),
        ("o.png", sheet, "another result is written there"),
    ):
        status, lines, written = redress(picture(SIZE), MASK, *more, out=out)
        assert (status, written) == (2, [])
        assert f"would be overwritten: {why}" in lines[-1]
    for files in (["--out", "in.png"], ["--out", "m.png", "--uncertainty", "in.png"]):
        given = [str(tmp_path / one) if one.endswith(".png") else one for one in files]
        assert main(["detect", "--character", str(tmp_path / "in.png"), *given]) == 2
    assert Image.open(tmp_path / "in.png").tobytes() == before
    assert not (tmp_path / "m.png").exists()


def test_a_ring_of_links_is_no_fault_of_what_is_written(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    check_writable(tmp_path / "o.png", inputs=[tmp_path / "a.png"])


@pytest.mark.parametrize("side", ["0", "-5", "7"])
def test_a_largest_side_below_one_latent_is_refused(redress, side):
    status, lines, written = redress(picture(SIZE), MASK, "--max-side", side)
    assert (status, written) == (2, [])
    assert lines[-1] == f"minicc: max_side={side}: expected 8 pixels or more, the side of one latent"


@in_both_phases
def test_a_picture_of_one_pixel_is_no_fault(redress, phase):
    status, lines, written = redress(picture((1, 1)), mask_of(np.ones((1, 1), bool)), phase=phase)
    assert (status, written) == (0, ["o.png"])
    assert any("the mask covers the whole picture" in line for line in lines)


@in_both_phases
def test_a_picture_of_20000_pixels_is_refused_before_it_is_decoded(redress, phase):
    status, lines, written = redress(Image.new("L", (20_000, 2)), Image.new("L", (20_000, 2), 255), phase=phase)
    assert (status, written) == (2, [])
    assert "20000×2" in lines[-1]
    assert "scale it" in lines[-1]


def test_unknown_words_are_named_with_those_the_tiny_model_knows(redress):
    status, lines, _ = redress(picture(SIZE), MASK, prompt="a velvet dres with stripes")
    assert status == 0
    assert any("'velvet' is a word that this model has never met" in line for line in lines)
    assert any("did you mean dress?" in line for line in lines)
    assert "a, doll, dress, in, red, stripes, with" in lines[-1]


def test_known_words_and_official_models_need_no_word(redress):
    assert redress(picture(SIZE), MASK, prompt="A RED dress, with stripes!")[1] == []
    assert redress(picture(SIZE), MASK, prompt="a velvet tuxedo", sd="official")[1] == []


@in_both_phases
@pytest.mark.parametrize(("option", "value"), [("--sd", "nowhere"), ("--control", "nowhere.safetensors")])
def test_missing_weights_are_named(redress, tmp_path, option, value, phase):
    status, lines, written = redress(picture(SIZE), MASK, option, str(tmp_path / value), phase=phase)
    assert (status, written) == (2, [])
    assert value in lines[-1]
    assert "is not there: give the path of a weights file, a diffusers folder, or a hub id" in lines[-1]


@in_both_phases
@pytest.mark.parametrize("out", ["o.jpg", "o", "o.gif"])
def test_a_format_that_would_change_pixels_is_refused_before_the_work(redress, out, phase):
    status, lines, written = redress(picture(SIZE), MASK, out=out, phase=phase)
    assert (status, written) == (2, [])
    assert "write one of .png, .webp, .tif, .tiff" in lines[-1]


@pytest.mark.parametrize("out", ["o.png", "o.webp", "o.tiff"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_format_keeps_what_is_outside_bit_for_bit(tmp_path, mode, out):
    character = picture(SIZE, mode)
    save_pictures({tmp_path / out: character})
    assert np.array_equal(np.asarray(Image.open(tmp_path / out).convert(mode)), np.asarray(character))


def test_results_are_written_all_or_none(tmp_path, monkeypatch):
    good, bad = picture(SIZE), picture(SIZE)
    monkeypatch.setattr(bad, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    save_pictures({tmp_path / "a.png": good})
    with pytest.raises(PictureError, match=r"b\.webp: cannot be written"):  # WebP ends at 16,383 pixels
        save_pictures({tmp_path / "a.png": picture(SIZE, seed=3), tmp_path / "b.webp": Image.new("L", (16_384, 1))})
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(PictureError, match=r"b\.png: cannot be written \(No space left"):
        save_pictures({tmp_path / "a.png": picture(SIZE, seed=3), tmp_path / "b.png": bad})
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_place_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "o.png").mkdir()
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(PictureError, match=r"file\.png is a file, and no folder"):
        save_pictures({tmp_path / "file.png" / "below" / "o.png": picture(SIZE)})
    with pytest.raises(PictureError, match="is a folder; name a file in it"):
        save_pictures({tmp_path / "o.png": picture(SIZE)})


def test_results_of_one_name_in_two_formats_are_both_whole(tmp_path):
    two = {tmp_path / "o.png": picture(SIZE), tmp_path / "o.webp": picture(SIZE, seed=3)}
    save_pictures(two)
    for path, image in two.items():
        assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(image))


def test_a_name_that_no_disk_has_is_refused_before_the_work(tmp_path):
    with pytest.raises(PictureError, match=r"cannot be written \(.*long\): choose another place"):
        check_writable(tmp_path / f"{'a' * 300}.png")


def test_a_place_without_permission_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PictureError, match="no permission in"):
        check_writable(tmp_path / "new" / "o.png")


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_refused(redress, seed):
    status, lines, written = redress(picture(SIZE), MASK, "--seed", str(seed))
    assert (status, written) == (2, [])
    assert f"seed={seed}: expected a whole number of 64 bits" in lines[-1]


def test_too_little_memory_is_one_line_that_says_what_helps(redress, monkeypatch):
    def hungry(*_args: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(phase1, "variants", hungry)
    status, lines, written = redress(picture(SIZE), MASK)
    assert (status, written) == (2, [])
    assert "out of memory while drawing: ask for fewer at once" in lines[-1]


def test_a_colour_that_stands_for_transparency_stays_transparent_outside_the_mask(tmp_path):
    """A PNG in RGB whose tRNS chunk says which colour is none, opened by PIL itself."""
    keyed = Image.new("RGB", SIZE, (255, 0, 255))
    keyed.paste((200, 30, 30), BOX)
    keyed.save(tmp_path / "keyed.png", transparency=(255, 0, 255))
    opened = Image.open(tmp_path / "keyed.png")
    assert (opened.mode, opened.info["transparency"]) == ("RGB", (255, 0, 255))
    sd = small_stable_diffusion()
    result = phase1.generate(sd, small_controlnet(sd), opened, MASK, "a red dress", steps=2).image
    outside = ~square(SIZE, BOX)
    assert result.mode == "RGBA"
    assert (np.asarray(result)[outside][:, 3] == 0).all()


def test_no_seed_is_no_picture():
    sd = small_stable_diffusion()
    with pytest.raises(Error, match="no seeds: expected one or more"):
        phase1.variants(sd, None, picture(SIZE), MASK, "a red dress", seeds=[])


def test_variants_a_sheet_and_a_strength(redress, tmp_path):
    status, _, written = redress(
        picture(SIZE, "RGBA"), MASK, "--variants", "3", "--strength", "0.5", "--sheet", str(tmp_path / "out" / "s.png")
    )
    assert (status, written) == (0, ["o-0.png", "o-1.png", "o-2.png", "s.png"])
    assert Image.open(tmp_path / "out" / "s.png").size == (5 * (48 + 8), 40 + 14 + 8)


def test_no_variant_is_refused(redress):
    status, lines, _ = redress(picture(SIZE), MASK, "--variants", "0")
    assert (status, lines) == (2, ["minicc: --variants 0: expected 1 or more"])


def test_of_a_large_picture_the_masks_neighbourhood_is_worked_on_at_full_resolution_if_asked_for(redress):
    large = picture((400, 300)), mask_of(square((400, 300), (100, 100, 130, 140)))
    said = ["".join(redress(*large, "--max-side", side)[1]) for side in ("100", "400")]
    assert "worked on a neighbourhood of the mask" in said[0]
    assert said[1] == ""


def test_a_large_picture_is_cut_out_and_one_line_says_so_once(redress):
    size = (400, 300)
    status, lines, _ = redress(picture(size), mask_of(square(size, (10, 10, 390, 290))))
    assert status == 0
    assert ["scaled up" in line for line in lines].count(True) == 1
    assert all(line.startswith("minicc: note: ") for line in lines)


def test_a_sheet_shows_the_mask_as_it_was_used():
    character, mask = Image.new("RGB", SIZE, "white"), square(SIZE, BOX)
    result = phase1.Result(character, mask_of(mask), "a red dress", 7)
    sheet = np.asarray(contact_sheet(character, [result]))
    shown = sheet[4:44, 48 + 8 + 4 : 2 * 48 + 8 + 4]
    assert np.array_equal((shown != 255).any(-1), mask)


def test_every_variant_has_its_cell_and_the_mask_is_that_of_all():
    character, one, other = (
        Image.new("RGB", SIZE, "white"),
        square(SIZE, (2, 2, 20, 20)),
        square(SIZE, (30, 10, 44, 30)),
    )
    made = [
        phase1.Result(Image.new("RGB", SIZE, colour), mask_of(mask), "a red dress", seed)
        for seed, (colour, mask) in enumerate((("red", one), ("blue", other)))
    ]
    sheet = np.asarray(contact_sheet(character, made))
    cells = [sheet[4:44, 4 + left : 52 + left] for left in range(0, 4 * 56, 56)]
    assert (cells[0] == 255).all()
    assert np.array_equal((cells[1] != 255).any(-1), one | other)
    assert (cells[2] == (255, 0, 0)).all()
    assert (cells[3] == (0, 0, 255)).all()


def test_words_of_captions_lie_beside_the_trained_tokenizer(tmp_path):
    captions = [doll.caption for doll in map(dolls.draw, range(40))]
    folder = train_tokenizer(captions, tmp_path / "tokenizer")
    known = known_words(folder)
    assert set(known) == {word for caption in captions for word in words_in(caption)}
    assert unknown_words(folder, captions[3]) == []
    assert unknown_words(None, "a velvet tuxedo") == unknown_words(tmp_path, "a velvet tuxedo") == []


def test_words_are_found_whatever_stands_between_them():
    assert words_in("A short-sleeved t-shirt, 2 RED socks (red)!") == ["a", "short-sleeved", "t-shirt", "red", "socks"]


def test_the_list_of_words_survives_saving_and_loading(models, tmp_path):
    import minicc

    sd = minicc.load(models / "sd", device="cpu")
    sd.save(tmp_path / "again")
    assert known_words(minicc.load(tmp_path / "again", device="cpu").tokenizer_source) == known_words(
        models / "sd" / "tokenizer"
    )


def test_a_batch_of_characters_of_two_sizes_is_refused():
    sd = small_stable_diffusion()
    ready = [phase1.prepare(sd, picture(size), square(size, (4, 4, 20, 20))) for size in ((24, 24), (40, 24))]
    with pytest.raises(Error, match=r"pictures of 24×24 and 40×24 in one batch"):
        phase1.batch(sd, None, ready, ["a", "b"], [0, 1])


def test_without_a_controlnet_the_locked_model_fills_the_mask():
    sd, character = small_stable_diffusion(), picture(SIZE)
    alone = phase1.generate(sd, None, character, square(SIZE, BOX), "a red dress", steps=2)
    silent = phase1.generate(sd, small_controlnet(sd), character, square(SIZE, BOX), "a red dress", steps=2, strength=0)
    assert alone.image.tobytes() == silent.image.tobytes()
    assert replace(alone, image=silent.image, mask=silent.mask) == silent
