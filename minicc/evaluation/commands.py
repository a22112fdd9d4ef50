"""`minicc evaluate STAGE`: figures printed as a table, and written as JSON."""

from argparse import Namespace
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from minicc.errors import Error
from minicc.evaluation.art import evaluate_art
from minicc.evaluation.art_wears import evaluate_phase2_on
from minicc.evaluation.base import evaluate_base, evaluate_reader
from minicc.evaluation.detector import evaluate_detector
from minicc.evaluation.detector_art import evaluate_detector_on
from minicc.evaluation.goals import Figures, table, write_json
from minicc.evaluation.phase1 import evaluate_phase1
from minicc.evaluation.phase2 import evaluate_phase2
from minicc.evaluation.vae import evaluate_vae
from minicc.models.controlnet import ControlNet
from minicc.outfit.clothing import ClothingDetector
from minicc.outfit.phase1 import warn_of_phase
from minicc.outfit.phase2 import GUIDANCE
from minicc.pipeline import StableDiffusion, default_device, load, usable
from minicc.reader import AttributeReader, load_reader
from minicc.training.checkpoint import writing
from minicc.weights.load import load_vae

Module = TypeVar("Module", bound=nn.Module)
ONLY_FOR = {  # options that mean nothing to other stages
    "data": ("phase1", "detector", "phase2"), "control": ("phase1", "phase2"), "phase1": ("phase2",),
    "plain": ("phase2",),
}  # fmt: skip


def evaluate_stage(a: Namespace) -> None:
    """Measure what the options name; print the figures, and write them if `--json` says where."""
    if a.n < 2:
        raise Error(f"--n {a.n}: populations are compared, at least 2 dolls are needed")
    if min(a.labels, default=1) < 1:
        raise Error(f"--labels {min(a.labels)}: a detector learns from 1 labelled picture or more")
    for name, others in ONLY_FOR.items():
        if getattr(a, name) is not None and a.stage not in others:
            raise Error(f"--{name} is for {', '.join(others)}: leave it out of {a.stage}")
    if a.json and a.json.is_dir():
        raise Error(f"--json {a.json} is a folder; name a file in it")
    alone = {"vae": vae, "reader": reader}
    stages = {"base": base, "phase1": phase1, "detector": detector, "phase2": phase2}
    if a.stage in alone:
        figures = {"n": a.n, "seed": a.seed, **alone[a.stage](a)}
    else:
        dtype = getattr(torch, a.dtype) if a.dtype else None
        sd = load(a.sd, device=a.device, dtype=dtype, prediction=a.prediction, vae=a.vae)
        if a.guidance is None:
            a.guidance = GUIDANCE if a.stage == "phase2" else sd.usual_guidance
        asked = {name: getattr(a, name) for name in ("n", "seed", "steps", "guidance")}
        figures = {**asked, **stages[a.stage](a, sd)}
    print("\n".join(lines(figures)))
    if "baselines" in figures and a.stage != "detector":  # whose baselines are curves
        print("\n".join(table(figures)))
    if a.json:
        with writing(a.json, "--json"):
            write_json(a.json, figures)


def vae(a: Namespace) -> Figures:
    return evaluate_vae(placed(a, load_vae(a.vae or "tiny").eval()), reader_of(a), a.n, a.seed)


def reader(a: Namespace) -> Figures:
    return evaluate_reader(placed(a, reader_of(a)), a.n, a.seed)


def placed(a: Namespace, model: Module) -> Module:
    """On the device and in the type that the options name: the best there is, float32."""
    device = usable(a.device) if a.device else default_device()
    return model.to(device=device, dtype=getattr(torch, a.dtype or "float32"))


def base(a: Namespace, sd: StableDiffusion) -> Figures:
    return evaluate_base(sd, reader_of(a), a.n, a.seed, a.steps, a.guidance)


def phase1(a: Namespace, sd: StableDiffusion) -> Figures:
    """On dolls; with `--data` on a folder of characters, whose attributes nobody can read."""
    control = ControlNet.load(a.control or "tiny-phase1", unet=sd.unet).eval()
    warn_of_phase(control, 1)
    if a.data:
        return evaluate_art(sd, control, a.data, a.n, a.seed, a.steps, a.guidance)
    reads_it = a.sd == "tiny" or a.detector != "tiny"  # the shipped detector reads the shipped base
    finder = ClothingDetector.load(a.detector) if reads_it else None
    if finder is None:
        print("silhouettes are left out: name a detector for this model with --detector")
    return evaluate_phase1(sd, control, reader_of(a), a.n, a.seed, a.steps, a.guidance, finder)


def phase2(a: Namespace, sd: StableDiffusion) -> Figures:
    """On dolls; with `--data` on a folder of characters. `--phase1`, `--plain`: the ControlNets of two baselines; on
    dolls and the shipped base the first is the shipped one, if none is named.
    """
    shipped = "tiny-phase1" if a.sd == "tiny" and not a.data else None
    control, one, plain = (
        ControlNet.load(source, unet=sd.unet).eval() if source else None
        for source in (a.control or "tiny-phase2", a.phase1 or shipped, a.plain)
    )
    assert control is not None
    warn_of_phase(control, 2)
    detector = ClothingDetector.load(a.detector)
    if a.data:
        if plain:
            raise Error("--plain is a baseline on dolls: leave it out with --data")
        return evaluate_phase2_on(sd, control, detector, a.data, a.n, a.seed, a.steps, a.guidance, one)
    return evaluate_phase2(sd, control, detector, reader_of(a), a.n, a.seed, a.steps, a.guidance, one, plain)


def detector(a: Namespace, sd: StableDiffusion) -> Figures:
    """On dolls; with `--data` on characters by artists, a folder with train/ and val/."""
    if a.data:
        return evaluate_detector_on(sd, ClothingDetector.load(a.detector), a.data, a.n, a.seed)
    return evaluate_detector(sd, ClothingDetector.load(a.detector), a.n, a.seed, a.labels)


def reader_of(a: Namespace) -> AttributeReader:
    return load_reader(a.reader) if a.reader else load_reader()


def lines(figures: Mapping[str, object], indent: str = "") -> list[str]:
    """One line a figure; tables inside are indented."""
    rows = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += [f"{indent}{name}", *lines(value, indent + "  ")]
        else:
            rows.append(f"{indent}{name:<28}{value:.4g}" if isinstance(value, float) else f"{indent}{name:<28}{value}")
    return rows
