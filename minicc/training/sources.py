"""What each stage of `minicc train` learns from: paper dolls, or a folder of the user's own characters."""

import warnings
from argparse import Namespace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from minicc.data.folder import PictureFolder
from minicc.models.tokenizer import fitting, tokenize
from minicc.outfit import extent, garment
from minicc.outfit.clothing import ClothingDetector
from minicc.pipeline import StableDiffusion
from minicc.training import names_stage, phase2_stage
from minicc.training.cache import digest_of, kept
from minicc.training.checkpoint import writing
from minicc.training.data import Dressed, Latents, Painted, Pictures, in_range
from minicc.training.detector_stage import Parts
from minicc.training.dolls_cache import (
    draw_dolls,
    draw_others,
    draw_points,
    draw_where,
    draw_worn,
    lone_garments,
    named,
    texts,
)
from minicc.training.encode import contexts_of, folder_latents, latents_of
from minicc.training.folders import FolderPictures, WornFolder, WornPictures
from minicc.training.names_stage import Named, means_and_names
from minicc.training.phase2_stage import Worn
from minicc.training.points_stage import Shown, maps_and_points

Folder = TypeVar("Folder", bound=PictureFolder)


def vae_dolls(a: Namespace, split: str, seeds: range) -> tuple[Dataset, Tensor]:
    """What the VAE learns from, and up to 512 of the characters, (N, 3, H, W) in [-1, 1]."""
    dolls = draw_dolls(a.cache, split, seeds, a.size or 128)
    return Pictures(dolls, a.seed), in_range(dolls["image"][:512])


def vae_folder(a: Namespace, folder: Path) -> tuple[Dataset, Tensor]:
    """The same of a folder of drawings."""
    pictures = reported(a, folder, PictureFolder(folder, size=a.size or 128))
    characters = [pictures[i]["image"] for i in range(min(512, len(pictures)))]
    return FolderPictures(pictures, a.seed), torch.stack(characters)  # type: ignore[arg-type]


def reported(a: Namespace, folder: Path, pictures: Folder) -> Folder:
    """The pictures, after all that their report says is written to OUT/report-FOLDER.txt; the warning is a summary."""
    if pictures.report:
        with writing(a.out):
            a.out.mkdir(parents=True, exist_ok=True)
            (a.out / f"report-{known_as(folder)}.txt").write_text(f"{pictures.report}\n", encoding="utf-8")
    return pictures


def known_as(folder: Path) -> str:
    """Its name after that of the one above it: many datasets have a train/."""
    root = folder.resolve()
    return f"{root.parent.name}-{root.name}"


def base_dolls(a: Namespace, sd: StableDiffusion, split: str, seeds: range) -> tuple[Latents, list[str]]:
    """Dolls and their captions. To learn from: both ways round, and half of the time told only what is worn, for so
    phase 1 speaks to the base.
    """
    dolls, learn = draw_dolls(a.cache, split, seeds, a.size or 128), split == "train"
    name = named(seeds) if learn else f"{split}-{named(seeds)}"
    latents = latents_of(a.cache / f"latents-{name}.safetensors", sd, dolls["image"])
    said = [texts(dolls[name]) for name in (("caption", "outfit") if learn else ("caption",))]
    ids = torch.stack([tokenize(sd.tokenizer, sentences) for sentences in said], dim=1)
    return Latents(latents if learn else latents[:, :1], ids, a.seed), said[0]


def base_folder(a: Namespace, sd: StableDiffusion, folder: Path, ways: int = 2) -> tuple[Latents, list[str]]:
    """The user's own characters and what of their captions fits; those without one teach nothing here.

    ways: 2 with their mirror images, 1 without.
    """
    pictures = reported(a, folder, PictureFolder(folder, a.size or sd.side, needs=("caption",)))
    name = kept_as(folder, pictures, "-told")
    latents = folder_latents(a.cache / f"latents-{name}.safetensors", sd, pictures)
    captions = [fitting(sd.tokenizer, sample.caption) for sample in pictures.samples]
    names = [sample.name for sample in pictures.samples]
    cut = [s.name for s, caption in zip(pictures.samples, captions, strict=True) if caption != s.caption]
    if cut:
        first = ", ".join(cut[:3])
        warnings.warn(f"{len(cut)} captions are too long and lose their ends, first those of {first}", stacklevel=2)
    return Latents(latents[:, :ways], tokenize(sd.tokenizer, captions)[:, None], a.seed, names), captions


def first_of(data: Dataset) -> list[dict]:
    """The first six samples, for a validation sheet."""
    return [data[i, i] for i in range(min(6, len(data)))]  # type: ignore[arg-type]


def some(data: Dataset) -> list[dict]:
    """Of the first six samples those whose mask is not empty: the others have nothing to show."""
    return [sample for sample in first_of(data) if sample["mask"].any()]


def phase1_dolls(a: Namespace, sd: StableDiffusion, split: str, seeds: range) -> Painted:
    """Dolls whose masks cover a second outfit as well; those of the training part are mirrored half of the time."""
    dolls, latents, context = encoded_dolls(a, sd, split, seeds)
    others = draw_others(a.cache, split, seeds, a.size or sd.side)
    return Painted(Dressed(dolls, others, texts(dolls["outfit"])), latents, context, a.seed)


def encoded_dolls(
    a: Namespace, sd: StableDiffusion, split: str, seeds: range
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Dolls, their latents, of the training part both ways round, and the contexts of what they wear; in the cache."""
    dolls = draw_dolls(a.cache, split, seeds, a.size or sd.side)
    name = named(seeds) if split == "train" else f"{split}-{named(seeds)}"
    latents = latents_of(a.cache / f"latents-{name}.safetensors", sd, dolls["image"])
    context = contexts_of(a.cache / f"outfits-{name}.safetensors", sd, texts(dolls["outfit"]))
    return dolls, latents if split == "train" else latents[:, :1], context


def phase1_folder(a: Namespace, sd: StableDiffusion, folder: Path) -> Painted:
    """The user's own characters, and their mirror images; those without a mask or a caption teach nothing here."""
    pictures = reported(a, folder, PictureFolder(folder, a.size or sd.side, needs=("mask", "clothes", "caption")))
    return Painted(pictures, *encoded(a, sd, pictures, folder), a.seed)


def encoded(
    a: Namespace, sd: StableDiffusion, pictures: PictureFolder, folder: Path, what: str = ""
) -> tuple[Tensor, Tensor]:
    """The latents of a folder's pictures, both ways round, and the contexts of their captions; kept in the cache.

    what: which of their pictures.
    """
    captions, name = [sample.caption for sample in pictures.samples], kept_as(folder, pictures, what)
    latents = folder_latents(a.cache / f"latents-{name}.safetensors", sd, pictures)
    return latents, contexts_of(a.cache / f"captions-{name}.safetensors", sd, captions)


def kept_as(folder: Path, pictures: PictureFolder, what: str) -> str:
    """The name in the cache of what was made of a folder's pictures, or of those that a stage learns from."""
    return f"{known_as(folder)}{what}-{pictures.size}"


def phase2_dolls(a: Namespace, sd: StableDiffusion, split: str, seeds: range) -> Worn:
    """Dolls with one of their garments alone."""
    dolls, latents, context = encoded_dolls(a, sd, split, seeds)
    worn = draw_worn(a.cache, split, seeds, a.size or sd.side)
    where = draw_where(a.cache, split, seeds, a.size or sd.side) if a.supervise else None
    return Worn(dolls, worn, latents, context, a.seed, vary=split == "train", where=where)


def phase2_folder(a: Namespace, sd: StableDiffusion, folder: Path) -> WornFolder:
    """The user's own characters in second outfits, and the garments that these show."""
    pictures = reported(a, folder, WornPictures(folder, a.size or sd.side))
    return WornFolder(pictures, *encoded(a, sd, pictures, folder, "-worn"), a.seed)


def points_dolls(a: Namespace, sd: StableDiffusion, detector: ClothingDetector, split: str, seeds: range) -> Shown:
    """What the detector's features say at some pixels of dolls, and which points of their garments these show."""
    images, points = draw_dolls(a.cache, split, seeds, sd.side)["image"], draw_points(a.cache, split, seeds, sd.side)
    models = (sd.unet, sd.vae, sd.text_encoder, detector.mean, detector.deviation)
    digest = digest_of(*models, images, points, a.seed, detector.t)
    path = a.cache / f"maps-{split}-{named(seeds)}.safetensors"
    return Shown(kept(path, digest, lambda: maps_and_points(sd, detector, images, points, a.seed)))


def names_dolls(a: Namespace, sd: StableDiffusion, detector: ClothingDetector, split: str, seeds: range) -> Named:
    """What the detector's features say of garments' pictures, and what these are called."""
    drawn = draw_dolls(a.cache, split, seeds, sd.side)
    models = (sd.unet, sd.vae, sd.text_encoder, detector.mean, detector.deviation)
    shown = [drawn[name] for name in ("flat", "image", "index", "facts")]
    code = [Path(module.__file__) for module in (names_stage, garment, extent, phase2_stage) if module.__file__]
    digest = digest_of(*models, *shown, *code, a.seed, detector.t)
    path = a.cache / f"means-{split}-{named(seeds)}.safetensors"
    return Named(kept(path, digest, lambda: means_and_names(sd, detector, drawn, seeds, a.seed)))


def detector_dolls(a: Namespace, sd: StableDiffusion, split: str, seeds: range) -> Parts:
    """Dolls with their part masks, and garments alone."""
    drawn = draw_dolls(a.cache, split, seeds, a.size or sd.side)
    return Parts(drawn, a.seed, lone_garments(drawn, seeds))
