"""What the commands of the command line do. Everything heavy is imported by the command that needs it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minicc.errors import Error

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from minicc.outfit.phase1 import Result
    from minicc.pipeline import StableDiffusion

said: set[str] = set()  # the notes of this run


def note(*messages: str) -> None:
    """Each on stderr as one line; none twice."""
    for message in messages:
        line = " ".join(message.split())
        if line not in said:
            said.add(line)
            print(f"minicc: note: {line}", file=sys.stderr)


def load_models(a: argparse.Namespace, look: bool = False) -> "StableDiffusion":
    """The models that the options name; look: at every number."""
    import minicc

    sd = minicc.load(a.sd, device=a.device, dtype=dtype_of(a), prediction=a.prediction, look=look, vae=a.vae)
    note(*sd.notes)
    return sd


def dtype_of(a: argparse.Namespace) -> "torch.dtype | None":
    """What --dtype says; None: nothing."""
    import torch

    return getattr(torch, a.dtype) if a.dtype else None


def enough_memory() -> AbstractContextManager[None]:
    """Where a picture, or a batch of variants, is too much for the device, an Error says what helps."""
    from minicc.memory import advice_on_memory

    return advice_on_memory("while drawing", "ask for fewer at once, a smaller --max-side, or on a GPU --dtype float16")


def run_demo(a: argparse.Namespace) -> None:
    from minicc.outfit.demo import demo

    demo(a.out, steps=a.steps, seed=a.seed, device=a.device, dtype=dtype_of(a))


def run_generate(a: argparse.Namespace) -> None:
    from minicc.data.write import check_writable, save_pictures
    from minicc.models.vocabulary import unknown_words

    outs = numbered(a.out, len(a.prompt))
    check_writable(*outs)
    sd = load_models(a)
    note(*unknown_words(sd.tokenizer_source, " ".join([*a.prompt, a.negative])))
    if a.compile:
        sd.compile()
    with enough_memory():
        pictures = sd.generate(a.prompt, steps=a.steps, guidance=a.guidance, negative=a.negative, seed=a.seed)
    print(*save_pictures(dict(zip(outs, pictures, strict=True))), sep="\n")


def run_phase1(a: argparse.Namespace) -> None:
    from minicc.data.pictures import open_mask, open_picture
    from minicc.models.controlnet import ControlNet
    from minicc.outfit import phase1

    outs = outputs(a)
    character, mask = open_picture(a.character), open_mask(a.mask)
    note(*character.info["notes"], *mask.info["notes"])
    sd = load_models(a)
    control = ControlNet.load(a.control, unet=sd.unet)
    doubt_unclothed(a, sd, character, mask)
    if a.compile:
        sd.compile(control)
    with enough_memory():
        results = phase1.variants(
            sd, control, character, mask, a.prompt, seeds=range(a.seed, a.seed + a.variants), steps=a.steps,
            guidance=a.guidance, negative=a.negative, strength=a.strength, feather=a.feather, max_side=a.max_side,
            progress=True,
        )  # fmt: skip
    write_results(a, character, results, outs)


def run_phase2(a: argparse.Namespace) -> None:
    from minicc.data.pictures import open_mask, open_picture
    from minicc.models.controlnet import ControlNet
    from minicc.outfit import phase2
    from minicc.outfit.clothing import ClothingDetector

    outs = outputs(a)
    character, garments = open_picture(a.character), [open_garment(path) for path in a.garment]
    mask = open_mask(a.mask) if a.mask else None
    if mask and a.classes:
        raise Error("--classes tells the detector what to look for, and with --mask it is not asked: leave one out")
    if mask and a.uncertainty:
        raise Error("--uncertainty shows what the detector sees, and with --mask it is not asked: leave one out")
    if mask and a.detector:
        raise Error("--detector finds the clothes, and with --mask it is not asked: leave one out")
    note(*(line for picture in (character, *garments, *([mask] if mask else [])) for line in picture.info["notes"]))
    sd = load_models(a)
    control = ControlNet.load(a.control, unet=sd.unet)
    if a.compile:
        sd.compile(control)
    shipped = a.sd == "tiny" and not a.vae  # with a painted mask, too, the shipped detector tells what goes where
    detector = ClothingDetector.load(a.detector or "tiny") if not mask or shipped else None
    if mask:  # painted, so that no detector has seen what is under it
        doubt_unclothed(a, sd, character, mask)
    with doubts_shown(unsure_at(a)), enough_memory():
        results = phase2.variants(
            sd, control, character, garments, detector=detector, mask=mask, classes=a.classes, prompt=a.prompt,
            seeds=range(a.seed, a.seed + a.variants), steps=a.steps, guidance=a.guidance, strength=a.strength,
            feather=a.feather, max_side=a.max_side, uncertainty=a.uncertainty, progress=True,
        )  # fmt: skip
    write_results(a, character, results, outs)


def open_garment(path: Path) -> "Image.Image":
    """A garment's picture. Raises PictureError, with the file's name, if it cannot be told what in it is garment."""
    from minicc.data.pictures import open_picture
    from minicc.errors import PictureError
    from minicc.outfit.garment import garment_picture

    garment = open_picture(path)
    try:
        garment_picture(garment, side=64)
    except PictureError as problem:
        raise PictureError(f"{path}: {problem}") from problem
    return garment


def doubt_unclothed(
    a: argparse.Namespace, sd: "StableDiffusion", character: "Image.Image", mask: "Image.Image"
) -> None:
    """A note if no clothes are seen under a painted mask, by the shipped detector, which knows the shipped model."""
    from minicc.outfit.clothing import ClothingDetector
    from minicc.outfit.compose import read_mask
    from minicc.outfit.detect import unclothed

    if a.sd == "tiny" and not a.vae:
        painted = read_mask(mask, character.size)
        note(*unclothed(ClothingDetector.load("tiny").find(sd, character), painted))


@contextmanager
def doubts_shown(path: Path) -> Iterator[None]:
    """Where the detector finds nothing, a picture of how unsure it was is written, and the error names it."""
    from minicc.data.write import save_pictures
    from minicc.errors import PictureError
    from minicc.outfit.detect import NothingFound

    try:
        yield
    except NothingFound as problem:
        save_pictures({path: problem.clothes.uncertainty_picture()})
        raise PictureError(f"{problem}; {path} shows where the detector was unsure") from problem


def outputs(a: argparse.Namespace) -> list[Path]:
    """Where the results go; Error if nothing can be written there, before anything is loaded."""
    from minicc.data.write import check_writable

    outs, garments = numbered(a.out, a.variants), getattr(a, "garment", [])
    others = [*([a.sheet] if a.sheet else []), *([unsure_at(a)] if "uncertainty" in a and not a.mask else [])]
    check_writable(*outs, *others, inputs=[path for path in (a.character, a.mask, *garments) if path])
    return outs


def unsure_at(a: argparse.Namespace) -> Path:
    """Where to show how unsure the detector was: as --uncertainty says, or, if nothing is found, beside the result."""
    return a.uncertainty or beside(a.out, "uncertainty")


def write_results(
    a: argparse.Namespace, character: "Image.Image", results: "Sequence[Result]", outs: Sequence[Path]
) -> None:
    """Results, the sheet if it was asked for, and what there is to say about them."""
    from minicc.data.write import save_pictures
    from minicc.outfit.sheet import contact_sheet

    note(*(line for result in results for line in result.notes))
    pictures = {path: result.image for path, result in zip(outs, results, strict=True)}
    sheet = {a.sheet: contact_sheet(character, list(results))} if a.sheet else {}
    print(*save_pictures(pictures | sheet), sep="\n")
    for path, result in zip(outs, results, strict=True):
        if result.colour_error is not None:
            print(f"colour error of {path.name}: ΔE2000 {result.colour_error:.1f}")


def numbered(path: Path, count: int) -> list[Path]:
    """The path itself, or for several results one path each, numbered before the suffix."""
    if count < 1:
        raise Error(f"--variants {count}: expected 1 or more")
    return [path] if count == 1 else [beside(path, i) for i in range(count)]


def beside(path: Path, what: object) -> Path:
    """hero.png → hero-WHAT.png; a path without a name, as ".", stays, to be refused."""
    return path.with_stem(f"{path.stem}-{what}") if path.name else path


def run_detect(a: argparse.Namespace) -> None:
    from minicc.data.pictures import open_picture
    from minicc.data.write import check_writable
    from minicc.outfit.clothing import ClothingDetector
    from minicc.outfit.detect import detect

    if a.parts and (a.classes or a.grow):
        raise Error("--parts are all classes as they are seen: leave out --classes and --grow")
    check_writable(a.out, unsure_at(a), inputs=[a.character])
    image, detector = open_picture(a.character), ClothingDetector.load(a.detector)
    with doubts_shown(unsure_at(a)):
        print(detect(load_models(a), detector, image, a.out, a.classes, a.grow, a.parts, a.uncertainty))


def run_train(a: argparse.Namespace) -> None:
    from minicc.training.commands import train_stage

    print(train_stage(a))


def run_evaluate(a: argparse.Namespace) -> None:
    from minicc.evaluation.commands import evaluate_stage

    evaluate_stage(a)


def run_dolls(a: argparse.Namespace) -> None:
    from minicc.data import dolls
    from minicc.data.write import check_writable, save_pictures
    from minicc.training.checkpoint import writing

    if not (a.sheet or a.folder):
        raise Error("say what to write: --sheet FILE.png, or --folder FOLDER")
    if a.n < 1:
        raise Error(f"-n {a.n}: expected 1 or more dolls")
    check_writable(*([a.sheet] if a.sheet else []))
    if a.layout and not a.folder:
        raise Error("--layout is a folder's: name one with --folder")

    def drawn() -> Iterator[dolls.Doll]:  # anew each time: a doll that is kept keeps its canvas
        return (dolls.draw(seed, size=a.size, split=a.split) for seed in range(a.seed, a.seed + a.n))

    if a.sheet:
        print(*save_pictures({a.sheet: dolls.contact_sheet(list(drawn()))}))
    if a.folder:
        with writing(a.folder, "--folder"):
            dolls.export(a.folder, drawn(), a.layout or "imagefolder", "seen" if a.split == "train" else "any")
        print(a.folder)


def run_export(a: argparse.Namespace) -> None:
    from minicc.models.controlnet import ControlNet

    if a.control and (a.vae or a.prediction):
        raise Error("--control exports a ControlNet alone, --vae and --prediction are a whole model's: leave them out")
    model = ControlNet.load(a.control, look=True) if a.control else load_models(a, look=True)
    print(model.save(a.out, layout=a.layout, dtype=dtype_of(a)))


def run_bench(a: argparse.Namespace) -> None:
    from minicc.evaluation.bench import bench

    for line in bench(a.size, a.rounds, a.device, a.dtype, a.rows):
        print(line, flush=True)
