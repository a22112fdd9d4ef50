"""`minicc train STAGE`: the options of the command line → a stage, its data, the loop, and the result as a file."""

import math
import os
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from minicc.data.folder import PictureFolder
from minicc.errors import Error
from minicc.memory import advice_on_memory
from minicc.models.controlnet import ControlNet
from minicc.models.garment_ways import in_way, way_of
from minicc.models.vae import VAE
from minicc.models.vocabulary import known_words, save_words
from minicc.outfit.clothing import ClothingDetector, Head, looking
from minicc.outfit.names import Names
from minicc.pipeline import StableDiffusion, default_device, load, usable
from minicc.reader import AttributeReader, load_reader
from minicc.training.checkpoint import writing
from minicc.training.config import RECIPE, TrainConfig
from minicc.training.data import in_range
from minicc.training.detector_stage import FLATS, DetectorStage, in_places
from minicc.training.dolls_cache import draw_dolls, draw_points, texts
from minicc.training.draws import Order
from minicc.training.encode import at_once
from minicc.training.folders import FolderParts
from minicc.training.loop import train
from minicc.training.memory import available, estimate
from minicc.training.names_stage import NAMES, NamesStage
from minicc.training.phase2_stage import Phase2Stage
from minicc.training.points_stage import PointsStage
from minicc.training.reader_stage import Labelled, ReaderStage, save_reader
from minicc.training.sources import (
    base_dolls,
    base_folder,
    detector_dolls,
    first_of,
    names_dolls,
    phase1_dolls,
    phase1_folder,
    phase2_dolls,
    phase2_folder,
    points_dolls,
    reported,
    some,
    vae_dolls,
    vae_folder,
)
from minicc.training.stage import Stage
from minicc.training.stages import BaseStage, Phase1Stage, VAEStage
from minicc.training.tiny import new_base, new_vae, seeded, train_tokenizer
from minicc.weights.export import save_vae
from minicc.weights.load import load_vae

CONFIG = (
    *RECIPE, "steps", "batch", "accumulate", "lr", "seed", "workers", "eight_bit", "compile", "save_every",
    "sample_every", "keep", "device",
)  # fmt: skip
ONLY_FOR = {  # options that mean nothing to other stages
    "control": ("phase1", "phase2"), "inside": ("phase1", "phase2"),
    "snr_gamma": ("base", "phase1", "phase2"), "held_out": ("vae", "base", "phase1", "phase2"),
    "variant": ("phase2",), "positions": ("phase2",), "supervise": ("phase2",),
    "motifs": ("vae",), "decoder_only": ("vae",), "detector": ("detector", "points", "names"), "old_share": ("reader",),
    "sd": ("base", "phase1", "detector", "points", "names", "phase2"), "drop": ("phase1", "phase2"),
    "reader": ("reader",),
    "size": ("vae", "base", "phase1", "detector", "phase2"),
}  # fmt: skip
WIDTH = 96  # of the detector's heads
POINTS_WIDTH = 192  # of the one that tells points
SHOWN = 12  # pictures on a validation sheet; the validation loss is measured on the same dolls


def train_stage(a: Namespace) -> Path:
    """Train what the options ask for; returns where the result is."""
    if a.dtype and a.stage not in ("phase1", "phase2"):
        raise Error(f"--dtype is what the locked models of phase1 and phase2 are kept in: for {a.stage}, --precision")
    if a.recompute and a.stage in ("reader", "detector", "points", "names"):
        raise Error(f"--recompute is for vae, base, phase1, phase2: a {a.stage} keeps little, take a smaller --batch")
    if a.data and a.stage in ("reader", "points", "names"):
        raise Error(f"--data: {a.stage} learns from paper dolls alone, of which all facts are known; leave it out")
    for name, others in ONLY_FOR.items():
        if a.stage not in others and getattr(a, name) not in (None, False, 0, math.inf):
            raise Error(f"--{name.replace('_', '-')} is for {', '.join(others)}: leave it out of {a.stage}")
    if a.held_out and not a.data:
        raise Error("--held-out goes with --data FOLDER: on paper dolls their validation split is held out")
    if a.size and a.size % 8:
        raise Error(f"--size {a.size}: a VAE halves pictures three times; expected a multiple of 8, such as 128")
    if a.dolls < 1:
        raise Error(f"--dolls {a.dolls}: expected 1 or more")
    if a.first_doll < 0:
        raise Error(f"--first-doll {a.first_doll}: expected 0 or more")
    if a.ema is None:
        a.ema = 0.995 if a.stage == "base" else 0.0
    config = TrainConfig(a.out, **{name: getattr(a, name) for name in CONFIG})
    if torch.cuda.is_available() and a.device != "cpu":  # to each process its own, as Accelerate will, from the start
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    stages = {
        "reader": train_reader, "vae": train_vae, "base": train_base, "phase1": train_phase1,
        "detector": train_detector, "points": train_points, "names": train_names, "phase2": train_phase2,
    }  # fmt: skip
    with advice_on_memory("outside the steps", "take fewer --dolls, a smaller --size, or --device cpu"):
        return stages[a.stage](a, config)


def dolls_of(a: Namespace) -> range:
    """The seeds of the paper dolls to learn from."""
    return range(a.first_doll, a.first_doll + a.dolls)


def train_reader(a: Namespace, config: TrainConfig) -> Path:
    """The attribute reader, new or trained, on dolls of its own split, in all combinations of clothes."""
    if not 0 <= a.old_share <= 1 or (a.old_share and not a.reader):
        raise Error(f"--old-share {a.old_share}: a share of --reader in the result, from 0 to 1; say which reader")
    data = Labelled(draw_dolls(a.cache, "judge", dolls_of(a)), config.seed)
    vae = load_vae(a.vae, dtype=torch.float32, look=True).eval() if a.vae else None
    stage = ReaderStage(load_reader(a.reader) if a.reader else seeded(AttributeReader, config.seed), vae)
    announce(stage, data, config)
    train(stage, data, config, Labelled(draw_dolls(a.cache, "val", range(SHOWN)), config.seed))
    if a.old_share:
        average(stage.reader, load_reader(a.reader), a.old_share)
    return save_reader(stage.reader, a.out / "reader")


@torch.no_grad()
def average(module: torch.nn.Module, other: torch.nn.Module, share: float) -> None:
    """θ ← (1 − share) θ + share θ_other: what was learned without what was forgotten (Wortsman et al. 2021, WiSE-FT,
    arXiv 2109.01903, eq. 1).
    """
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        ours.lerp_(theirs.to(ours), share)


def train_vae(a: Namespace, config: TrainConfig) -> Path:
    """The tiny VAE on dolls and their garments, or on a folder of drawings in another style, from the start or from a
    trained one; saved as a diffusers folder.

    Its scaling factor is measured at the end. With the decoder alone in training, latents and factor stay.
    """
    if a.decoder_only and not a.vae:
        raise Error("--decoder-only trains a trained VAE further: say which with --vae FOLDER")
    if a.data:
        data, characters = vae_folder(a, a.data)
        held_out, shown = vae_folder(a, a.held_out) if a.held_out else (None, characters)
    else:
        data, characters = vae_dolls(a, "train", dolls_of(a))
        held_out, shown = vae_dolls(a, "val", range(SHOWN))
    vae = load_vae(a.vae, dtype=torch.float32, look=True) if a.vae else new_vae(config.seed)
    vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs, too
    vae.recompute = a.recompute
    stage = VAEStage(vae, shown[:SHOWN], decoder_only=a.decoder_only, motifs=a.motifs)
    announce(stage, data, config)
    train(stage, data, config, held_out)
    vae = stage.vae.eval()
    if not a.decoder_only:
        vae.config = replace(vae.config, scaling_factor=scaling_factor(vae, characters))
    return save_vae(vae, a.out / "vae")


@torch.no_grad()
def scaling_factor(vae: VAE, images: Tensor) -> float:
    """1 / the standard deviation of latents: what makes them unit variance (Rombach et al. 2022, appendix G).

    images: (N, 3, H, W) in [-1, 1].
    """
    device = next(vae.parameters()).device
    means = [vae.encode(batch.to(device)).mean.cpu() for batch in images.split(at_once(images))]
    return round(1 / torch.cat(means).std().item(), 5)


def train_base(a: Namespace, config: TrainConfig) -> Path:
    """The U-Net and its text encoder on captions, of dolls or of a folder of characters, in a trained VAE's latents.
    Saved as a whole model; of a small one, with the words that it has met by now.

    On dolls they begin with new weights, or with those of a trained base, whose VAE --vae replaces: what it learned of
    one VAE's latents it need not learn again of a better one's.
    """
    if a.data and not a.sd:
        raise Error("--data teaches a trained base to draw your own characters: say which with --sd, such as tiny")
    sd = load(a.sd, a.device, torch.float32, a.prediction, look=True, vae=a.vae) if a.sd else untrained(a, config.seed)
    sd.check_controllable([])  # no inpainting model, which expects more than latents
    if a.data:
        data, captions = base_folder(a, sd, a.data)
        held_out, shown = base_folder(a, sd, a.held_out, ways=1) if a.held_out else (None, captions)
    else:
        data, captions = base_dolls(a, sd, "train", dolls_of(a))
        held_out, shown = base_dolls(a, sd, "val", range(SHOWN))
    sd.unet.recompute = a.recompute
    shown = shown[: SHOWN if sd.knows_one_size else 2]  # drawn at once: twelve of 512 pixels take gigabytes
    stage = BaseStage(sd, shown=shown, snr_gamma=a.snr_gamma)
    announce(stage, data, config)
    train(stage, data, config, held_out)
    saved = sd.save(a.out / "sd", dtype=torch.float16)
    if known := known_words(sd.tokenizer_source):
        with writing(saved):
            save_words([*known, *captions], saved / "tokenizer")
    return saved


def untrained(a: Namespace, seed: int) -> StableDiffusion:
    """The tiny model in a trained VAE's latents, before it has learned anything but its tokenizer's words."""
    vae = load_vae(a.vae or "tiny", dtype=torch.float32, look=True).eval()
    folder = a.out / "tokenizer"
    if not (folder / "words.txt").is_file():  # written last; a run that goes on keeps its numbers of words
        with writing(folder):
            train_tokenizer(texts(draw_dolls(a.cache, "train", dolls_of(a), a.size or 128)["caption"]), folder)
    return new_base(vae, folder, seed).to(usable(a.device) if a.device else default_device())


def train_phase1(a: Namespace, config: TrainConfig) -> Path:
    """The phase-1 ControlNet, on paper dolls or on a folder of characters; saved as a diffusers folder."""
    sd = load(a.sd or "tiny", a.device, locked_dtype(a), a.prediction, look=True, vae=a.vae)
    sd.check_controllable([])
    whole, fresh = torch.float32, partial(seeded, lambda: ControlNet.from_unet(sd.unet), config.seed)
    control = ControlNet.load(a.control, dtype=whole, unet=sd.unet, look=True) if a.control else fresh()
    control.to(whole)  # what learns does so in float32, whatever the locked models are kept in
    for model in (sd.unet, control):
        model.recompute = a.recompute
    if a.data:
        data = phase1_folder(a, sd, a.data)
        held_out = phase1_folder(a, sd, a.held_out) if a.held_out else None
    else:
        data, held_out = phase1_dolls(a, sd, "train", dolls_of(a)), phase1_dolls(a, sd, "val", range(SHOWN))
    weights = given(a, "drop", "inside", "snr_gamma")
    stage = Phase1Stage(sd, control, shown=some(held_out or data), **weights)
    announce(stage, data, config)
    train(stage, data, config, held_out)
    return control.save(a.out / "controlnet")


def locked_dtype(a: Namespace) -> torch.dtype:
    """What the locked models are kept in: half precision halves their memory, but needs mixed precision beside it."""
    if a.dtype and a.dtype != "float32" and a.precision == "no":
        raise Error(f"--dtype {a.dtype} keeps the locked models in half precision: add --precision bf16 or fp16")
    return getattr(torch, a.dtype or "float32")


def given(a: Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were given; for the others the stage's own value stands."""
    return {name: value for name in names if (value := getattr(a, name)) is not None}


def train_phase2(a: Namespace, config: TrainConfig) -> Path:
    """Phase 2 on paper dolls or on a folder of characters in two outfits, from phase 1's ControlNet; saved as a
    diffusers folder, of phase 1's shape.

    `--variant`, `--positions` and `--supervise` are what is compared in `evaluation.garment_experiment`.
    """
    sd = load(a.sd or "tiny", a.device, locked_dtype(a), a.prediction, look=True, vae=a.vae)
    sd.check_controllable([])
    start = ControlNet.load(a.control or "tiny-phase1", unet=sd.unet, dtype=torch.float32, look=True)
    control = in_way(start, a.variant, a.positions)
    if a.supervise and (way := way_of(control)) not in ("joint", "decoder"):
        raise Error(f"--supervise teaches joint attention, and the way {way!r} has none: leave one out")
    if a.supervise and a.data:
        raise Error(
            "--supervise needs to know which pixel of the garment went where; --data does not tell: leave one out"
        )
    for model in (sd.unet, control):
        model.recompute = a.recompute
    if a.data:
        data: Dataset = phase2_folder(a, sd, a.data)
        held_out: Dataset | None = phase2_folder(a, sd, a.held_out) if a.held_out else None
    else:
        data, held_out = phase2_dolls(a, sd, "train", dolls_of(a)), phase2_dolls(a, sd, "val", range(SHOWN))
    weights = given(a, "drop", "inside", "snr_gamma", "supervise")
    stage = Phase2Stage(sd, control, shown=some(held_out or data), **weights)
    announce(stage, data, config)
    train(stage, data, config, held_out)
    return control.save(a.out / "controlnet")


def train_detector(a: Namespace, config: TrainConfig) -> Path:
    """The clothing detector on the features of a locked model, on dolls or on a folder with masks."""
    sd = load(a.sd or "tiny", a.device, prediction=a.prediction, look=True, vae=a.vae)
    data: Dataset
    if a.data:
        pictures = reported(a, a.data, PictureFolder(a.data, size=a.size or sd.side, needs=("mask",)))
        data, held_out = FolderParts(pictures, a.seed, FLATS), None
    else:
        data, held_out = detector_dolls(a, sd, "train", dolls_of(a)), detector_dolls(a, sd, "val", range(SHOWN))
    if a.detector:
        detector = ClothingDetector.load(a.detector)
        detector.heads.requires_grad_(True)
        if a.data or a.vae or a.sd not in (None, "tiny"):
            detector.points = detector.names = None  # learned on dolls, as other models see them: unknown what they say
    else:
        images = torch.stack([data[i, i]["image"] for i in range(min(64, len(data)))])
        maps, _ = in_places(looking(sd), images, config.seed, "nearest")  # as they are, not as enlarged
        detector = seeded(lambda: ClothingDetector([m.shape[1] for m in maps], width=WIDTH), config.seed)
        detector.measure(maps)
    stage = DetectorStage(sd, detector, parts=not a.data, shown=first_of(held_out or data))
    announce(stage, data, config)
    train(stage, data, config, held_out)
    return detector.save(a.out / "detector")


def train_points(a: Namespace, config: TrainConfig) -> Path:
    """One more head for a trained detector, new or trained: which point of its garment's picture each pixel shows."""
    sd = load(a.sd or "tiny", a.device, prediction=a.prediction, look=True, vae=a.vae)
    detector = ClothingDetector.load(a.detector or "tiny")
    if detector.points is None:
        detector.points = seeded(lambda: Head(detector.channels, POINTS_WIDTH, classes=3), config.seed)
    detector.to(sd.device)
    data, held_out = (points_dolls(a, sd, detector, *of) for of in (("train", dolls_of(a)), ("val", range(SHOWN))))
    where = (a.cache, "val", range(SHOWN), sd.side)
    dolls = zip(draw_dolls(*where)["image"][:6], draw_points(*where)[:6], strict=True)
    stage = PointsStage(sd, detector, [{"image": in_range(x), "points": p.float()} for x, p in dolls])
    announce(stage, data, config)
    train(stage, data, config, held_out)
    return detector.save(a.out / "detector")


def train_names(a: Namespace, config: TrainConfig) -> Path:
    """One more layer for a trained detector, always a new one: what a garment is called."""
    sd = load(a.sd or "tiny", a.device, prediction=a.prediction, look=True, vae=a.vae)
    detector = ClothingDetector.load(a.detector or "tiny")
    detector.names = seeded(lambda: Names(sum(detector.channels), NAMES), config.seed)
    detector.to(sd.device)
    data, held_out = (names_dolls(a, sd, detector, *of) for of in (("train", dolls_of(a)), ("val", range(100))))
    detector.names.measure(data.kept["means"])
    stage = NamesStage(detector)
    announce(stage, data, config)
    train(stage, data, config, held_out)
    return detector.save(a.out / "detector")


def announce(stage: Stage, data: Dataset, config: TrainConfig) -> None:
    """Say how much memory the run will need, and how much is free."""
    keys = next(iter(Order(len(data), config.batch, 0, 0, 1)))  # type: ignore[arg-type]
    options = {"ema": config.ema > 0, "eight_bit": config.eight_bit, "half": config.precision != "no"}
    device = torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")
    need = estimate(stage, default_collate([data[key] for key in keys]), **options)
    there = sum(p.nbytes for p in stage.parameters() if p.device.type != "cpu")  # on the GPU already, and in `need`
    print(f"{need}; {(available(device) + there) / 2**30:.1f} GB are free for it", flush=True)
