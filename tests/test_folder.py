"""Anybody's folder of characters becomes samples, and one report names every file that is bad or was converted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minicc.data.dolls import draw
from minicc.data.files import SUFFIXES
from minicc.data.folder import PictureFolder, covering, framed, read_folder, square
from minicc.data.ground import plain_ground
from minicc.data.pictures import FORMATS, open_mask
from minicc.data.samples import clothes, image_of, index_of
from minicc.data.tensors import on_white
from minicc.errors import PictureError
from minicc.outfit.compose import grow

SIZE = (24, 24)


def character(red: int = 200) -> Image.Image:
    """A picture on a white ground with a body, RGB."""
    pixels = np.full((24, 24, 3), 255, np.uint8)
    pixels[4:20, 8:16] = (red, 80, 60)
    return Image.fromarray(pixels)


def index_mask(number: int = 1) -> Image.Image:
    values = np.zeros((24, 24), np.uint8)
    values[10:18, 8:16] = number
    mask = Image.fromarray(values)
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255] + [90, 90, 90] * 20)
    return mask


def put(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def put_rows(root: Path, rows: list[object]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


def image_row(root: Path, name: str, **more: object) -> dict[str, object]:
    """A whole row and its files."""
    put(root / f"{name}.png", character())
    put(root / f"{name}_mask.png", index_mask())
    return {"file_name": f"{name}.png", "mask_file_name": f"{name}_mask.png", "text": f"a red {name}", **more}


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_imagefolder_metadata_gives_pictures_masks_and_captions(tmp_path: Path):
    put_rows(tmp_path, [image_row(tmp_path, "hoodie"), image_row(tmp_path, "dress")])
    samples, report = read_folder(tmp_path)
    assert (report.layout, report.kept, bool(report)) == ("metadata", 2, False)
    assert [s.caption for s in samples] == ["a red hoodie", "a red dress"]
    assert samples[0].image == tmp_path / "hoodie.png"
    assert clothes(index_of(samples[0], SIZE)).sum() == 64


def test_the_readmes_line_is_a_whole_sample(tmp_path: Path):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    row = json.loads(next(line for line in readme.split("\n") if line.startswith('{"file_name"')))
    put(tmp_path / row["file_name"], character())
    put(tmp_path / row["mask_file_name"], Image.new("L", SIZE, 255))
    (sample,), report = read_folder(put_rows(tmp_path, [row]), needs=("mask", "clothes", "caption"))
    assert (sample.name, sample.caption, bool(report)) == ("hero.png", "a red hoodie, blue jeans", False)


def test_metadata_csv_is_read_as_well(tmp_path: Path):
    image_row(tmp_path, "hoodie")
    (tmp_path / "metadata.csv").write_text('file_name,mask_file_name,text\nhoodie.png,hoodie_mask.png,"red, warm"\n')
    samples, report = read_folder(tmp_path)
    assert [s.caption for s in samples] == ["red, warm"]
    assert not report


@pytest.mark.parametrize("name", ["metadata.parquet", "metadata.csv"])
def test_a_table_that_is_not_read_is_named(tmp_path: Path, name: str):
    rows = [image_row(tmp_path, "hoodie")]
    (tmp_path / name).write_bytes(b"PAR1")
    if name.endswith("parquet"):
        assert "save it as that" in read_folder(tmp_path)[1].notes[name]
    assert read_folder(put_rows(tmp_path, rows))[1].notes == {name: "not read; metadata.jsonl is read instead"}


def bad_files(root: Path) -> dict[str, str]:
    """A file of every bad kind → what its report must say. The first are dropped, the others used with a note."""
    good = put(root / "good.png", character()).read_bytes()
    (root / "cut.png").write_bytes(good[: len(good) // 2])
    (root / "text.png").write_text("no picture")
    (root / "empty.png").write_bytes(b"")
    put(root / "huge.png", Image.new("1", (20_000, 10)))
    (root.parent / "secret.png").write_bytes(good)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "ring.png").symlink_to(root / "ring.png")
    put(root / "cmyk.jpg", character().convert("CMYK"))
    put(root / "palette.png", character().quantize(16))
    put(root / "wide.png", Image.fromarray(np.asarray(character().convert("L")).astype(np.uint16) * 257))
    put(root / "moving.gif", character(), save_all=True, append_images=[character(90)])
    return {
        "missing.png": "no such file",
        "cut.png": "damaged",
        "text.png": "not a picture",
        "empty.png": "empty",
        "huge.png": "huge",
        "link.png": "leads out",
        "ring.png": "",
        "../secret.png": "leads out",
        str(root.parent / "secret.png"): "leads out",
        "cmyk.jpg": "CMYK",
        "palette.png": "palette",
        "wide.png": "16-bit",
        "moving.gif": "animated",
    }


def test_every_kind_of_bad_picture_is_named_and_none_stops_the_others(tmp_path: Path):
    root = tmp_path / "set"
    put(root / "mask.png", index_mask())
    expected = bad_files(root)
    names = ["good.png", *expected, "good.png"]
    put_rows(root, [{"file_name": name, "mask_file_name": "mask.png", "text": "x"} for name in names])
    samples, report = read_folder(root)
    used = {s.name for s in samples}
    assert used == {"good.png", "good.png (metadata.jsonl:15)", "cmyk.jpg", "palette.png", "wide.png", "moving.gif"}
    for i, (name, word) in enumerate(expected.items(), 2):
        said = report.notes[name] if name in used else report.dropped.get(name) or report.dropped[f"metadata.jsonl:{i}"]
        assert word in said, name
    assert len(report.dropped) == 9
    assert all(word in str(report) for word in expected.values())


def test_every_kind_of_bad_mask_is_named_too(tmp_path: Path):
    root = tmp_path / "set"
    bad = [name for name in bad_files(root) if name.split(".")[0] not in ("cmyk", "palette", "wide", "moving")]
    rows: list[object] = [{"file_name": "good.png", "mask_file_name": name, "text": "x"} for name in bad]
    put(root / "small.png", index_mask().resize((12, 12)))
    put(root / "blank.png", Image.new("L", SIZE))
    put(root / "wide_mask.png", Image.fromarray(np.asarray(index_mask()).astype(np.uint16) * 65535))
    for i, name in enumerate(["small.png", "blank.png", "wide_mask.png"]):
        put(root / f"{i}.png", character())
        rows.append({"file_name": f"{i}.png", "mask_file_name": name, "text": "x"})
    samples, report = read_folder(put_rows(root, rows))
    assert [s.name for s in samples] == ["1.png", "2.png"]
    assert "12×12 but the picture 24×24" in report.dropped["0.png"]
    assert report.notes["1.png"] == "its mask shows no clothes"
    assert "mask: 16-bit" in report.notes["2.png"]
    words = str(report)
    for word in ("no such file", "damaged", "not a picture", "empty", "huge", "leads out"):
        assert word in words


def test_lines_that_are_no_rows_are_named_by_their_number(tmp_path: Path):
    good = image_row(tmp_path, "hoodie")
    wrong = [
        "{broken",
        "[1, 2]",
        {"text": "no name"},
        {"file_name": 7},
        {"file_name": "a\0b"},
        {"file_name": "\ud800.png"},
    ]
    samples, report = read_folder(put_rows(tmp_path, [*wrong, "", good]))
    assert [s.name for s in samples] == ["hoodie.png"]
    assert list(report.dropped)[:5] == [f"metadata.jsonl:{i}" for i in range(1, 6)]
    assert len(report.dropped) == 6
    assert "not JSON" in report.dropped["metadata.jsonl:1"]
    assert "a list" in report.dropped["metadata.jsonl:2"]
    assert "columns: text" in report.dropped["metadata.jsonl:3"]


def test_pictures_that_no_row_names_are_noted(tmp_path: Path):
    put_rows(tmp_path, [image_row(tmp_path, "hoodie")])
    put(tmp_path / "more" / "forgotten.png", character())
    _, report = read_folder(tmp_path)
    assert "no row" in report.notes["more/forgotten.png"]
    assert len(report.notes) == 1


def test_a_damaged_garment_costs_the_garment_and_not_the_sample(tmp_path: Path):
    rows = [image_row(tmp_path, name, garment_file_name=file) for name, file in (("a", "g.png"), ("b", "../g.png"))]
    (tmp_path / "g.png").write_text("no picture")
    samples, report = read_folder(put_rows(tmp_path, rows))
    assert [s.garment for s in samples] == [None, None]
    assert "without its garment" in report.notes["a.png"]
    assert "leads out" in report.notes["metadata.jsonl:2"]


def test_what_is_missing_is_noted(tmp_path: Path):
    put(tmp_path / "a.png", character())
    _, report = read_folder(put_rows(tmp_path, [{"file_name": "a.png"}]))
    assert report.notes["a.png"] == "no caption; no mask"


def pair(root: Path, name: str = "0", **more: object) -> dict[str, object]:
    row: dict[str, object] = {"swap": "top", "changed": ["top"], **more}
    for side, red in (("a", 200), ("b", 90)):
        put(root / f"person_{side}" / f"{name}.png", character(red))
        put(root / f"mask_{side}" / f"{name}.png", index_mask())
        put(root / f"garment_{side}" / f"{name}.png", character(red))
        row |= {f"{what}_{side}": f"{what}_{side}/{name}.png" for what in ("person", "mask", "garment")}
        row |= {f"outfit_{side}": f"outfit {side}", f"garment_{side}_text": f"garment {side}"}
    return row


def test_a_pair_gives_two_samples_each_the_other_s_target(tmp_path: Path):
    (a, b), report = read_folder(put_rows(tmp_path, [pair(tmp_path)]))
    assert not report
    assert (a.caption, a.garment_text, b.caption, b.garment_text) == ("outfit a", "garment b", "outfit b", "garment a")
    assert (a.target, a.target_mask, a.garment) == (b.image, b.mask, tmp_path / "garment_b" / "0.png")
    assert (b.target, b.target_mask, b.garment) == (a.image, a.mask, tmp_path / "garment_a" / "0.png")
    assert a.changed == b.changed == ("top",)


def test_half_a_pair_is_used_and_the_other_half_named(tmp_path: Path):
    row = pair(tmp_path)
    (tmp_path / "person_b" / "0.png").unlink()
    (a,), report = read_folder(put_rows(tmp_path, [row]))
    assert (a.name, a.target) == ("person_a/0.png", None)
    assert "no such file" in report.dropped["person_b/0.png"]
    assert "without its target" in report.notes["person_a/0.png"]


def test_an_unknown_class_in_changed_is_named(tmp_path: Path):
    samples, report = read_folder(put_rows(tmp_path, [pair(tmp_path, changed=["tops"])]))
    assert not samples
    assert "expected some of top, bottom" in report.dropped["metadata.jsonl:1"]


@pytest.mark.parametrize("folder", ["lpc/val", "dicebear/val", "anime"])
def test_the_artists_characters_are_all_used(shared: Path, folder: str):
    """Outfits A and B differ under the masks alone; DiceBear's anti-aliased edges up to 2 pixels beside them."""
    root = shared / "characters" / folder
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    samples, report = read_folder(root)
    assert len(samples) == sum("person_b" in row for row in rows) + len(rows)
    assert not report.dropped
    for sample in samples[:6]:
        index = np.asarray(Image.open(sample.mask))
        assert np.array_equal(clothes(index_of(sample, index.shape[::-1])), index > 0)
        if sample.target and sample.target_mask:
            here, there = (
                np.asarray(picture.convert("RGB")) for picture in (image_of(sample), Image.open(sample.target))
            )
            either = (index > 0) | (np.asarray(Image.open(sample.target_mask)) > 0)
            kept = ~(either if folder.startswith("lpc") else grow(either, 2))
            assert np.array_equal(here[kept], there[kept])


def test_a_folder_with_several_splits_asks_which(tmp_path: Path):
    for split in ("train", "val"):
        put_rows(tmp_path / split, [image_row(tmp_path / split, "hoodie")])
    with pytest.raises(PictureError, match="train, val: name one"):
        read_folder(tmp_path)
    assert len(read_folder(tmp_path / "val")[0]) == 1


# ── VITON-HD ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def viton(root: Path, *names: str) -> Path:
    for name in names:
        put(root / "image" / f"{name}.jpg", character())
        put(root / "cloth" / f"{name}.jpg", character())
        put(root / "image-parse-v3" / f"{name}.png", index_mask(5))
    return root


def test_viton_hd_s_layout_is_read_with_its_own_labels(tmp_path: Path):
    root = viton(tmp_path / "train", "0_00", "1_00")
    parse = np.asarray(index_mask(5)).copy()
    parse[0, :4] = (2, 10, 14, 9)  # hair, neck, arm, trousers
    mask = Image.fromarray(parse)
    mask.putpalette(list(range(256)) * 3)
    put(root / "image-parse-v3" / "0_00.png", mask)
    (tmp_path / "train_pairs.txt").write_text("0_00.jpg 0_00.jpg\n1_00.jpg 0_00.jpg\n")
    (own, other), report = read_folder(tmp_path)  # its only split is taken
    assert (report.layout, report.dropped) == ("viton", {})
    index = index_of(own, SIZE)
    assert index[0, :4].tolist() == [6, 7, 7, 2]
    assert clothes(index, own.changed).sum() == 64  # the tops alone
    assert clothes(index).sum() == 65
    assert own.target == own.image
    assert (other.image.name, other.garment, other.target) == ("1_00.jpg", own.garment, None)


def test_viton_hd_without_a_list_pairs_files_of_one_name(tmp_path: Path):
    samples, _ = read_folder(viton(tmp_path, "0_00", "1_00"))
    assert [s.garment.name for s in samples if s.garment] == ["0_00.jpg", "1_00.jpg"]


def test_viton_hd_without_parse_maps_takes_the_agnostic_masks_and_says_so(tmp_path: Path):
    root = viton(tmp_path / "test", "0_00")
    painted = np.zeros((24, 24), np.uint8)
    painted[10:18, 6:18] = 255
    put(root / "agnostic-mask" / "0_00_mask.png", Image.fromarray(painted))
    assert clothes(index_of(read_folder(root)[0][0], SIZE)).sum() == 64  # the parse map, while it is there
    (root / "image-parse-v3").rename(root / "elsewhere")
    (sample,), report = read_folder(root)
    assert np.array_equal(clothes(index_of(sample, SIZE), sample.changed), painted > 0)
    assert "arms are in it" in report.notes["agnostic-mask/"]
    (root / "agnostic-mask").rename(root / "gone")
    with pytest.raises(PictureError, match=r"no image-parse-v3/ or agnostic-mask/"):
        read_folder(root)


def test_viton_hd_names_bad_pairs_and_unlisted_pictures(tmp_path: Path):
    root = viton(tmp_path / "test", "0_00", "1_00")
    lines = [
        "0_00.jpg 0_00.jpg",
        "one",
        "../../x.jpg 0_00.jpg",
        "9_00.jpg 0_00.jpg",
        ". 0_00.jpg",
        "9" * 300 + " 0_00.jpg",
    ]
    (tmp_path / "test_pairs.txt").write_text("\n".join(lines))
    (root / "caption").mkdir()
    samples, report = read_folder(root)
    assert [s.name for s in samples] == ["0_00.jpg"]
    assert "expected two" in report.dropped["test_pairs.txt:2"]
    assert "leads out" in report.dropped["test_pairs.txt:3"]
    assert "no such file" in report.dropped["9_00.jpg in 0_00.jpg"]
    assert "a folder" in report.dropped[". in 0_00.jpg"]
    assert "cannot be read" in report.dropped["test_pairs.txt:6"]
    assert "not in test_pairs.txt" in report.notes["image/1_00.jpg"]
    put(root / "image" / "more" / "2_00.jpg", character())
    assert "not in test_pairs.txt" in read_folder(root)[1].notes["image/more/2_00.jpg"]
    (tmp_path / "test_pairs.txt").unlink()
    assert "below image/" in read_folder(root)[1].notes["image/more/2_00.jpg"]


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def layer(rows: slice, colour: str) -> Image.Image:
    image = Image.new("RGBA", SIZE)
    image.paste(colour, (8, rows.start, 16, rows.stop))
    return image


def doll(root: Path, name: str = "mia") -> Path:
    put(root / name / "1_body.png", layer(slice(2, 22), "#ffccaa"))
    put(root / name / "2_blue-jeans.png", layer(slice(14, 22), "#0000ff"))
    put(root / name / "3_red-hoodie.png", layer(slice(8, 16), "#ff0000"))
    put(root / name / "10_long hair.png", layer(slice(2, 10), "#552200"))
    return root


def test_layers_are_merged_and_only_clothes_that_show_are_masked(tmp_path: Path):
    (sample,), report = read_folder(doll(tmp_path))
    assert (report.layout, bool(report)) == ("layers", False)
    assert sample.caption == "blue jeans, red hoodie"
    index = index_of(sample, SIZE)
    assert [int(index[row, 10]) for row in (0, 3, 9, 11, 15, 18)] == [0, 6, 6, 1, 1, 2]  # 10_ lies above 3_
    image = image_of(sample)
    assert image.mode == "RGBA"
    assert image.getpixel((10, 11)) == (255, 0, 0, 255)
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)


def test_a_caption_file_beside_the_layers_is_taken(tmp_path: Path):
    (doll(tmp_path) / "mia" / "caption.txt").write_text("a warm hoodie over jeans\n")
    assert read_folder(tmp_path)[0][0].caption == "a warm hoodie over jeans"


def test_a_character_with_a_bad_layer_is_named_and_the_others_stay(tmp_path: Path):
    for name in ("cut", "opaque", "small", "well"):
        doll(tmp_path, name)
    (tmp_path / "cut" / "3_red-hoodie.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    put(tmp_path / "opaque" / "3_red-hoodie.png", Image.new("RGBA", SIZE, "red"))
    put(tmp_path / "small" / "3_red-hoodie.png", layer(slice(8, 16), "red").resize((12, 12)))
    (tmp_path / "nothing").mkdir()
    samples, report = read_folder(tmp_path)
    assert [s.name for s in samples] == ["well"]
    assert set(report.dropped) == {"cut", "opaque", "small", "nothing"}
    assert "hides all layers below" in report.dropped["opaque"]
    assert "12×12" in report.dropped["small"]


def test_layers_in_a_folder_below_the_characters_are_named_and_not_used(tmp_path: Path):
    put(doll(tmp_path) / "mia" / "more" / "9_hat.png", layer(slice(0, 4), "#00ff00"))
    samples, report = read_folder(tmp_path)
    assert len(samples) == 1
    assert "deeper" in report.notes["mia/more/9_hat.png"]


def test_every_picture_that_can_be_opened_has_a_name_that_is_looked_for():
    rare = {".icb", ".vda", ".vst"}  # TGA's other names, which mean other things today
    assert {end for end, form in Image.registered_extensions().items() if form in FORMATS} - rare <= SUFFIXES


def test_layers_without_numbers_are_used_with_a_word_about_their_order(tmp_path: Path):
    put(tmp_path / "mia" / "body.png", layer(slice(2, 22), "#ffccaa"))
    put(tmp_path / "mia" / "dress.png", layer(slice(8, 22), "#0000ff"))
    _, report = read_folder(tmp_path)
    assert "body under dress" in report.notes["mia"]


# ── any folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pictures_alone_take_captions_from_text_files(tmp_path: Path):
    put(tmp_path / "10.png", character())
    put(tmp_path / "sub" / "2.png", character())
    (tmp_path / "10.txt").write_text("ten")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    samples, report = read_folder(tmp_path)
    assert {(s.name, s.caption) for s in samples} == {("10.png", "ten"), ("sub/2.png", "")}
    assert "not a picture" in report.dropped["phone.heic"]


def test_no_folder_no_pictures_and_no_such_layout_are_told_apart(tmp_path: Path):
    with pytest.raises(PictureError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(PictureError, match="expected one of these layouts"):
        read_folder(tmp_path)
    with pytest.raises(PictureError, match="expected one of metadata, viton, layers, pictures"):
        read_folder(tmp_path, layout="coco")


def test_a_summary_counts_what_happened_to_many_kind_by_kind_and_names_the_first(tmp_path: Path):
    for i in range(30):
        put(tmp_path / f"{i}.png", character().quantize(8) if i else character())
    (tmp_path / "5.txt").write_text("five")
    (tmp_path / "x.png").write_text("no picture")
    _, report = read_folder(tmp_path)
    assert report.summary().splitlines() == [
        "pictures: 30 samples, 1 left out.",
        f"  x.png left out: {report.dropped['x.png']}.",
        "  29 pictures: palette colours, converted to RGB (1.png, 2.png, 3.png and 26 more).",
        "  29 pictures: no caption (0.png, 1.png, 2.png and 26 more).",
        "  30 pictures: no mask (0.png, 1.png, 2.png and 27 more).",
    ]
    assert len(str(report).splitlines()) == 32


def test_a_summary_counts_lines_of_metadata_as_lines_and_garments_without_their_reasons(tmp_path: Path):
    rows = [image_row(tmp_path, name, garment_file_name=f"{name}-garment.png") for name in "ab"]
    _, report = read_folder(put_rows(tmp_path, [*rows, "[]", "[]"]))
    assert report.summary().splitlines()[1:] == [
        "  2 lines left out: a list; expected one object a line (metadata.jsonl:3, metadata.jsonl:4).",
        "  2 pictures: used without its garment (a.png, b.png).",
    ]
    assert "no such file" in report.notes["a.png"]


def incomplete(root: Path, complete: int = 0) -> Path:
    """Five characters, each wanting something, and some complete ones."""
    rows = [image_row(root, name) for name in ["a", "b", "c", "d", "e", *map(str, range(complete))]]
    put(root / "e_mask.png", Image.new("L", SIZE))
    del rows[0]["mask_file_name"], rows[1]["mask_file_name"], rows[1]["text"], rows[3]["text"]
    rows[2]["text"] = " "
    return put_rows(root, rows)


def test_samples_that_lack_what_is_needed_are_left_out_and_the_report_says_what(tmp_path: Path):
    samples, report = read_folder(incomplete(tmp_path, complete=2), needs=("mask", "clothes", "caption"))
    assert [s.name for s in samples] == ["0.png", "1.png"]
    assert report.dropped == {
        "a.png": "no mask", "b.png": "no mask and no caption", "e.png": "its mask shows no clothes",
        "c.png": "no caption", "d.png": "no caption",
    }  # fmt: skip
    assert report.summary().splitlines()[0] == "metadata: 2 samples, 5 left out."
    assert "  2 pictures left out: no caption (c.png, d.png)." in report.summary().splitlines()
    assert not {*report.dropped} & {*report.notes}
    assert len(read_folder(tmp_path)[0]) == 7


def test_a_folder_in_which_every_sample_lacks_something_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(PictureError) as error:
        PictureFolder(incomplete(tmp_path), size=8, needs=("mask", "clothes", "caption"))
    assert str(error.value).startswith(f"{tmp_path}: no sample can be used. metadata: 0 samples, 5 left out.")
    assert "a.png left out: no mask." in str(error.value)
    assert "Each needs a mask and a caption: the README's “A folder to train on” shows" in str(error.value)


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_item_is_a_picture_on_white_with_the_mask_of_its_clothes(tmp_path: Path):
    data = PictureFolder(doll(tmp_path), size=24)
    item = data[0]
    image, mask = item["image"], item["mask"]
    assert isinstance(image, torch.Tensor)
    assert isinstance(mask, torch.Tensor)
    assert (image.shape, mask.shape) == ((3, 24, 24), (1, 24, 24))
    assert image[:, 0, 0].tolist() == [1, 1, 1]  # transparent is white
    assert image[:, 11, 10].tolist() == [1, -1, -1]  # the red hoodie
    assert mask.unique().tolist() == [0, 1]
    assert mask[0, :, 10].nonzero().flatten().tolist() == list(range(10, 22))
    assert (item["caption"], item["name"]) == ("blue jeans, red hoodie", "mia")


def test_items_of_any_size_are_collated(tmp_path: Path):
    put(tmp_path / "a.png", character().resize((50, 30)))
    put(tmp_path / "b.png", character().resize((7, 90)))
    with pytest.warns(UserWarning, match="no mask"):
        data = PictureFolder(tmp_path, size=16)
    (batch,) = torch.utils.data.DataLoader(data, batch_size=2)
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["image"].abs().max() <= 1
    assert batch["mask"].sum() == 0


@pytest.mark.parametrize("size", [0, -8, 20])
def test_a_size_that_a_vae_cannot_halve_three_times_is_refused(tmp_path: Path, size: int):
    with pytest.raises(PictureError, match="multiple of 8"):
        PictureFolder(doll(tmp_path), size=size)


def test_the_same_item_twice_is_the_same(tmp_path: Path):
    data = PictureFolder(doll(tmp_path), size=16)
    assert all(torch.equal(data[0][key], data[0][key]) for key in ("image", "mask"))  # type: ignore[arg-type]


def test_a_file_that_breaks_later_is_skipped_with_a_warning(tmp_path: Path):
    data = PictureFolder(put_rows(tmp_path, [image_row(tmp_path, name) for name in "ab"]), size=24)
    (tmp_path / "b.png").unlink()
    with pytest.warns(UserWarning, match=r"b.png is skipped"):
        assert data[1]["name"] == "a.png"
    (tmp_path / "a.png").unlink()
    with pytest.warns(UserWarning, match=r"a.png is skipped"), pytest.raises(PictureError, match="none of the samples"):
        data[0]


def test_a_folder_of_only_bad_files_is_an_error_that_names_them(tmp_path: Path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"a\.png"):
        PictureFolder(tmp_path, size=8)


def photo(height: int, width: int) -> Image.Image:
    """No plain ground anywhere."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_drawing_on_a_plain_ground_is_padded_with_the_ground():
    drawing = Image.new("RGB", (10, 30), "#336699")
    drawing.paste("#ff0000", (3, 5, 7, 25))
    layer = np.zeros((30, 10), bool)
    layer[5:25, 3:7] = True
    image, mask = square(drawing, layer, plain_ground(drawing))
    assert image.size == (30, 30)
    assert mask.sum() == layer.sum()
    assert np.array_equal(np.asarray(image)[mask], np.asarray(drawing)[layer])
    assert set(np.asarray(image)[:, :10].reshape(-1, 3).sum(1)) == {0x33 + 0x66 + 0x99}


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("first", [0, 5, 55])
def test_a_photograph_is_cropped_about_the_clothes(tall: bool, first: int):
    picture, layer = photo(60, 20), np.zeros((60, 20), bool)
    layer[first : first + 5, 4:9] = True
    if not tall:
        picture, layer = picture.transpose(Image.Transpose.TRANSPOSE), layer.T
    image, mask = square(picture, layer, None)
    assert image.size == (20, 20)
    assert mask.sum() == layer.sum()
    assert np.array_equal(np.asarray(image)[mask], np.asarray(picture)[layer])


def test_a_photograph_whose_clothes_are_longer_than_a_square_keeps_them_all():
    picture, layer = photo(60, 20), np.zeros((60, 20), bool)
    layer[10:50, 4:9] = True
    image, mask = square(picture, layer, None)
    assert image.size == (60, 60)
    assert mask.sum() == layer.sum()
    assert np.array_equal(np.asarray(image)[:, 20:40], np.asarray(picture))


def test_a_figure_before_a_plain_ground_fills_what_is_learned_from_and_its_layer_goes_with_it():
    sheet = Image.new("RGBA", (200, 300), (0, 0, 0, 0))
    sheet.paste("#336699", (60, 40, 100, 120))
    layer = np.zeros((300, 200), np.uint8)
    layer[60:80, 60:100] = 2
    image, levels = framed(sheet, layer, 128)
    assert image.size == (84, 84)  # 80 high, and 2 of ground above and below
    assert (levels == 2).sum() == (layer == 2).sum()
    assert (np.asarray(image)[levels == 2] == (0x33, 0x66, 0x99)).all()
    assert (np.asarray(image)[:2] == 255).all()


def test_a_figure_that_fills_its_picture_and_one_before_a_busy_ground_stay_whole():
    doll, layer = draw(3, size=64, background="none"), np.zeros((64, 64), np.uint8)
    assert np.array_equal(np.asarray(framed(doll.image, layer, 64)[0]), np.asarray(on_white(doll.image)))
    assert np.array_equal(np.asarray(framed(photo(60, 60), layer[:60, :60], 64)[0]), np.asarray(photo(60, 60)))


def test_a_figure_that_the_pictures_edge_cuts_off_keeps_its_ground():
    bust = Image.new("RGB", (100, 120), "#ffeecc")
    bust.paste("#336699", (20, 30, 80, 120))
    image, _ = framed(bust, np.zeros((120, 100), np.uint8), 64)
    assert image.size == (92, 92)
    assert (np.asarray(image)[:, 0] == (0xFF, 0xEE, 0xCC)).all()


def test_no_clothes_peep_out_beside_the_mask_after_scaling_down():
    layer = np.zeros((64, 64), bool)
    layer[30, 5:60] = True  # a belt, one pixel high
    mask = covering(layer, 16)
    assert mask[7, 1:15].all()
    assert mask.sum() <= 15


def test_what_lies_beside_the_data_set_is_named(tmp_path: Path):
    put_rows(tmp_path / "train", [image_row(tmp_path / "train", "a")])
    put(tmp_path / "b.png", character())
    put(tmp_path / "more" / "c.png", character())
    samples, report = read_folder(tmp_path)
    assert [s.name for s in samples] == ["a.png"]
    assert set(report.notes) == {"b.png", "more/c.png"}
    assert set(report.notes.values()) == {"beside the data set train/: not used"}


def test_pictures_in_hidden_folders_are_none(tmp_path: Path):
    put_rows(tmp_path, [image_row(tmp_path, "a")])
    put(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png", character())
    assert not read_folder(tmp_path)[1]


def test_a_table_whose_text_has_commas_without_quotes_is_named_and_not_cut(tmp_path: Path):
    image_row(tmp_path, "a")
    rows = ["file_name,mask_file_name,text", "a.png,a_mask.png,a red hoodie, blue jeans", 'a.png,a_mask.png,"a, b"']
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    samples, report = read_folder(tmp_path)
    assert [s.caption for s in samples] == ["a, b"]
    assert report.dropped == {"metadata.csv:2": "more cells than columns; put text with commas in quotes"}


def test_two_rows_of_one_picture_are_two_samples(tmp_path: Path):
    """And what one lacks is not held against the other."""
    row = image_row(tmp_path, "a")
    put_rows(tmp_path, [row, row | {"text": ""}])
    samples, report = read_folder(tmp_path, needs=("caption",))
    assert [s.name for s in samples] == ["a.png"]
    assert set(report.dropped) == {"a.png (metadata.jsonl:2)"}


def test_a_target_of_another_size_is_not_used_and_named(tmp_path: Path):
    put(tmp_path / "b.png", character().resize((10, 10)))
    put(tmp_path / "b_mask.png", index_mask().resize((10, 10)))
    extras = {"target_file_name": "b.png", "target_mask_file_name": "b_mask.png"}
    (sample,), report = read_folder(put_rows(tmp_path, [image_row(tmp_path, "a", **extras)]))
    assert (sample.target, sample.target_mask) == (None, None)
    assert "b.png is 10×10, the picture 24×24: same size, please" in report.notes["a.png"]


def test_layers_are_recognised_past_a_character_of_one_layer_and_strange_names_are_noted(tmp_path: Path):
    sheet = Image.new("RGBA", (24, 24))
    sheet.paste("red", (4, 4, 20, 20))
    put(tmp_path / "ann" / "1_body.png", sheet)
    for name in ("0_background", "1_body", "2_red sweatshirt", "3_widget"):
        put(tmp_path / "bea" / f"{name}.png", sheet)
    samples, report = read_folder(tmp_path)
    assert report.layout == "layers"
    assert [s.caption for s in samples] == ["", "red sweatshirt"]
    assert "not taken for clothes: 3_widget.png" in report.notes["bea"]
    assert "background" not in report.notes["bea"]


def test_a_strip_is_made_smaller_before_it_is_made_a_square():
    layer = np.zeros((6000, 20), bool)
    layer[3000:] = True
    white = np.full(3, 255, np.uint8)
    image, square_layer = square(Image.new("RGB", (20, 6000), "white"), layer, white)
    assert image.size == (4096, 4096)
    assert 0 < square_layer.sum() < 20 * 4096
    assert not square_layer[:2000].any()
    assert square_layer[2100:].any()


def test_an_index_mask_whose_class_0_is_transparent_keeps_its_classes(tmp_path: Path):
    mask = index_mask(2)
    mask.info["transparency"] = 0
    put(tmp_path / "m.png", mask, transparency=0)
    assert set(np.unique(np.asarray(open_mask(tmp_path / "m.png")))) == {0, 2}
