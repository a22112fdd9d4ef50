"""The command line: minicc demo | generate | phase1 | phase2 | detect | train | evaluate | dolls | export | bench."""

import argparse
import gc
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minicc import run
from minicc.errors import Error
from minicc.training.config import add_recipe

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; an Error becomes one line on stderr and exit status 2."""
    if any("\0" in word for word in argv or ()):  # from Python alone: a shell has none
        print("minicc: an argument with a NUL in it, which no file's name has", file=sys.stderr)
        return 2
    arguments = parser().parse_args(argv)
    run.said.clear()
    with warnings.catch_warnings(), collecting_rarely():  # a notebook that calls a command keeps its own ways
        warnings.showwarning = lambda message, *_, **__: run.note(str(message))
        try:
            arguments.run(arguments)
        except Error as problem:
            print(f"minicc: {problem}", file=sys.stderr)
            return 2
    return 0


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Python's collector looks for garbage after 700 new objects; while PyTorch and transformers are imported they make
    hundreds of thousands that are none, and a command would start later for it.
    """
    often = gc.get_threshold()
    gc.set_threshold(50_000, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="minicc", description="Redress drawn characters with Stable Diffusion.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    add_demo(commands.add_parser("demo", help="dress a paper doll; a minute, nothing to download"))
    add_generate(commands.add_parser("generate", help="sentences → pictures, without a ControlNet"))
    add_phase1(commands.add_parser("phase1", help="character + painted mask + sentence → the character redressed"))
    add_phase2(commands.add_parser("phase2", help="character + picture of a garment → the character wears it"))
    add_detect(commands.add_parser("detect", help="where the clothes are in a picture, as a mask"))
    add_train(commands.add_parser("train", help="train a stage; resumes from its newest checkpoint"))
    add_evaluate(commands.add_parser("evaluate", help="measure a shipped or trained stage on dolls it has never seen"))
    add_dolls(commands.add_parser("dolls", help="draw paper dolls: a contact sheet, or a folder to train on"))
    add_export(commands.add_parser("export", help="write a model in another layout"))
    add_bench(commands.add_parser("bench", help="time minicc beside diffusers on identical weights"))
    return top


SD_HELP = "checkpoint file, diffusers folder, hub id, or a shipped name [tiny]"


VAE_HELP = "another VAE in the place of the model's: file, folder, hub id or shipped name; a fine-tuned decoder"


def add_models(
    p: argparse.ArgumentParser, sd_help: str = SD_HELP, default: str | None = "tiny", vae_help: str = VAE_HELP
) -> None:
    """Options that say which models, where."""
    p.add_argument("--sd", default=default, help=sd_help)
    p.add_argument("--vae", help=vae_help)
    p.add_argument("--prediction", choices=["epsilon", "v_prediction"], help="for SD 2.x files that do not say")
    add_place(p)


def add_place(p: argparse.ArgumentParser) -> None:
    """Where the models are, and in which precision."""
    p.add_argument("--device", help="cuda, mps or cpu [the best there is]")
    p.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="[the file's; float32 on a CPU, and for a VAE or reader alone]",
    )


def add_sampling(p: argparse.ArgumentParser, guidance: float | None = None) -> None:
    """Options of the sampler. guidance: its default; None: the model's usual."""
    p.add_argument("--steps", type=int, default=50, help="DDIM steps [50]")
    usual = guidance or "7.5; tiny: 2.5"
    p.add_argument("--guidance", type=float, default=guidance, help=f"classifier-free guidance, 1 is none [{usual}]")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--compile", action="store_true", help="torch.compile: minutes at first, for many variants")
    p.add_argument("--out", type=Path, required=True)


def add_demo(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the pictures [out/demo]")
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--seed", type=int, default=0)
    add_place(p)
    p.set_defaults(run=run.run_demo)


def add_generate(p: argparse.ArgumentParser) -> None:
    add_models(p)
    p.add_argument("--prompt", nargs="+", required=True, help="sentences; --out gets a number for each of several")
    p.add_argument("--negative", default="", help="what to move away from")
    add_sampling(p)
    p.set_defaults(run=run.run_generate)


def add_region(p: argparse.ArgumentParser) -> None:
    """How much of the picture is generated, and worked on."""
    p.add_argument(
        "--feather", type=int, default=0, help="grow the mask outward by at most so many pixels each way [0]"
    )
    p.add_argument(
        "--max-side",
        type=int,
        help="of larger pictures only the mask's neighbourhood is worked on, at full resolution "
        "[1.5 times the model's side; the tiny model sees the whole picture, scaled]",
    )


def add_phase1(p: argparse.ArgumentParser) -> None:
    add_models(p)
    p.add_argument("--control", default="tiny-phase1", help="ControlNet file, folder or shipped name [tiny-phase1]")
    p.add_argument("--character", type=Path, required=True, help="picture, any size, RGB or RGBA")
    p.add_argument("--mask", type=Path, required=True, help="same size, white over what shall change")
    p.add_argument("--prompt", required=True, help='the new attire, e.g. "a red dress"')
    p.add_argument("--negative", default="", help="what to move away from")
    add_region(p)
    p.add_argument("--strength", type=float, default=1.0, help="of the ControlNet, 0 is none [1]")
    p.add_argument("--variants", type=int, default=1, help="results from as many seeds; --out gets a number each [1]")
    p.add_argument("--sheet", type=Path, help="also write a contact sheet: character, mask, variants")
    add_sampling(p)
    p.set_defaults(run=run.run_phase1)


def add_phase2(p: argparse.ArgumentParser) -> None:
    add_models(p)
    p.add_argument("--control", default="tiny-phase2", help="ControlNet file, folder or shipped name [tiny-phase2]")
    p.add_argument("--detector", help="what finds the clothes: folder, or the shipped one's name [tiny]")
    p.add_argument("--character", type=Path, required=True, help="picture, any size, RGB or RGBA")
    p.add_argument("--garment", type=Path, nargs="+", required=True, help="one picture, or several: an outfit")
    p.add_argument("--mask", type=Path, help="white over what shall change [found by the detector]")
    p.add_argument(
        "--classes", nargs="+", default=[], help="what is changed: top bottom dress shoes accessory [as the garment]"
    )
    p.add_argument("--uncertainty", type=Path, help="also write how unsure the detector is, white where it is")
    p.add_argument("--prompt", default="", help="words beside the picture [none]")
    add_region(p)
    p.add_argument("--strength", type=float, default=1.0, help="of the ControlNet, 0 is none [1]")
    p.add_argument("--variants", type=int, default=1, help="results from as many seeds; --out gets a number each [1]")
    p.add_argument("--sheet", type=Path, help="also write a contact sheet: character, mask, variants")
    add_sampling(p, guidance=2.0)
    p.set_defaults(run=run.run_phase2)


def add_detect(p: argparse.ArgumentParser) -> None:
    add_models(p)
    p.add_argument("--detector", default="tiny", help="folder of a detector, or the shipped one's name [tiny]")
    p.add_argument("--character", type=Path, required=True, help="picture, any size, RGB or RGBA")
    p.add_argument("--classes", nargs="+", default=[], help="top bottom dress shoes accessory [all of these]")
    p.add_argument("--grow", type=int, default=0, help="pixels outward, below 0 inward [0]")
    p.add_argument("--parts", action="store_true", help="write all classes as a palette picture")
    p.add_argument("--uncertainty", type=Path, help="also write how unsure the detector is, white where it is")
    p.add_argument("--out", type=Path, required=True)
    p.set_defaults(run=run.run_detect)


def add_train(p: argparse.ArgumentParser) -> None:
    p.add_argument("stage", choices=["reader", "vae", "base", "phase1", "detector", "points", "names", "phase2"])
    add_models(
        p, "base: a trained one to go on from [a new one]; phase1: the locked model [tiny]", default=None,
        vae_help="vae: one to go on from [new]; base: a trained one [the model's, or the shipped one]; reader: half of "
        "its pictures go through it [none do]; else in the place of the model's, as a fine-tuned decoder",
    )  # fmt: skip
    p.add_argument("--control", help="ControlNet to start from [a copy of the U-Net]")
    p.add_argument(
        "--data",
        type=Path,
        help="folder of characters; phase1: with masks, captions; base: with captions; detector: "
        "with masks; phase2: in two outfits, and the garments; vae: any",
    )
    p.add_argument(
        "--held-out", type=Path, help="base, phase1, phase2, vae: such a folder that tells which checkpoint is the best"
    )
    p.add_argument("--reader", type=Path, help="reader: a trained one to go on from [new]")
    p.add_argument(
        "--old-share", type=float, default=0.0, metavar="SHARE",
        help="reader: how much of --reader is in the average that is saved, against what it forgets [0]",
    )  # fmt: skip
    p.add_argument("--detector", help="detector: one to go on from [new]; points, names: that which learns [tiny]")
    p.add_argument("--decoder-only", action="store_true", help="vae: the encoder stays, so a base on its latents holds")
    p.add_argument("--dolls", type=int, default=20000, help="paper dolls to draw and learn from [20000]")
    p.add_argument("--first-doll", type=int, default=0, help="the first one's number: 20000 for others than those [0]")
    p.add_argument("--cache", type=Path, default=Path("runs/cache"), help="drawn dolls, latents [runs/cache]")
    p.add_argument("--size", type=int, help="side in pixels [the model's own]")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints, curves, pictures and the result")
    for name, kind, value in [
        ("steps", int, 1000), ("batch", int, 8), ("accumulate", int, 1), ("lr", float, 1e-4), ("seed", int, 0),
        ("workers", int, 0), ("save-every", int, 500), ("sample-every", int, 500), ("keep", int, 2),
    ]:  # fmt: skip
        p.add_argument(f"--{name}", type=kind, default=value, help=f"[{value}]")
    add_recipe(p)
    p.set_defaults(ema=None)  # the stage's
    add_objective(p)
    p.add_argument("--compile", action="store_true", help="torch.compile: minutes at the start, then faster steps")
    p.add_argument(
        "--recompute", action="store_true",
        help="vae, base, phase1, phase2: gradient checkpointing, less memory for a third more time",
    )  # fmt: skip
    p.add_argument("--eight-bit", action="store_true", help="8-bit AdamW, needs bitsandbytes")
    p.set_defaults(run=run.run_train)


def add_objective(p: argparse.ArgumentParser) -> None:
    """What is learned: the loss's weights, and how a garment is seen."""
    p.add_argument("--drop", type=float, help="phases: share of sentences left out, as in the paper [0.5]")
    p.add_argument("--inside", type=float, help="phase1, phase2: weight of a masked cell in the loss [1, 2]")
    p.add_argument("--motifs", type=float, default=0.0, help="vae: weight of what stands out on clothes, as logos [0]")
    ways = ["joint", "plain", "canvas", "decoder", "words"]
    p.add_argument("--variant", choices=ways, help="phase2: how the garment is seen [as --control does]")
    p.add_argument("--positions", action="store_true", help="phase2: the hint tells where each pixel lies")
    p.add_argument("--supervise", type=float, default=0.0, help="phase2: weight of the loss on attention [0]")
    p.add_argument("--snr-gamma", type=float, default=math.inf, help="base, phase1, phase2: Min-SNR-γ; 5, 1 [∞: off]")


def add_evaluate(p: argparse.ArgumentParser) -> None:
    p.add_argument("stage", choices=["reader", "vae", "base", "phase1", "detector", "phase2"])
    add_models(p, vae_help="vae: its folder or file [the shipped one]; else in the place of the model's")
    p.add_argument(
        "--detector",
        default="tiny",
        help="phase1, detector, phase2: folder, or the shipped one, which reads tiny [tiny]",
    )
    p.add_argument("--control", help="phase1, phase2: file, folder or shipped name [tiny-phase1, tiny-phase2]")
    p.add_argument("--phase1", help="phase2: the ControlNet of the baseline that is given words [tiny-phase1 on tiny]")
    p.add_argument("--plain", help="phase2: the ControlNet of the baseline with a plain hint [left out]")
    p.add_argument("--labels", type=int, nargs="*", default=[1, 5, 20, 100], help="detector: numbers of labels")
    p.add_argument(
        "--data", type=Path, help="phase1, phase2: characters in two outfits; detector: a folder with train and val"
    )
    p.add_argument("--reader", type=Path, help="folder of the attribute reader [the shipped one]")
    p.add_argument("--n", type=int, default=200, help="how many dolls [200]")
    p.add_argument("--seed", type=int, default=0, help="of the dolls and the noise; no training has seen them [0]")
    p.add_argument("--steps", type=int, default=50, help="DDIM steps [50]")
    p.add_argument("--guidance", type=float, help="[7.5; tiny: 2.5; phase2: 2]")
    p.add_argument("--json", type=Path, help="write the figures to this file as well")
    p.set_defaults(run=run.run_evaluate)


def add_dolls(p: argparse.ArgumentParser) -> None:
    p.add_argument("--sheet", type=Path, help="write a contact sheet")
    p.add_argument("--folder", type=Path, help="write a folder to train on")
    p.add_argument("--layout", help="of the folder: imagefolder, pairs (in two outfits), layers, viton [imagefolder]")
    p.add_argument("--split", default="train", help="train, val or test: no two share a doll [train]")
    p.add_argument("-n", type=int, default=48, help="how many [48]")
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--seed", type=int, default=0, help="of the first doll; the others follow")
    p.set_defaults(run=run.run_dolls)


def add_export(p: argparse.ArgumentParser) -> None:
    add_models(p)
    p.add_argument("--control", help="export this ControlNet instead of a whole model")
    p.add_argument("--layout", choices=["diffusers", "compvis"], required=True)
    p.add_argument("--out", type=Path, required=True)
    p.set_defaults(run=run.run_export)


def add_bench(p: argparse.ArgumentParser) -> None:
    p.add_argument("--size", choices=["tiny", "full"], default="tiny", help="full: Stable Diffusion 1.5's [tiny]")
    p.add_argument("--rounds", type=int, default=5, help="how often each side is timed, in turns [5]")
    p.add_argument("--device", help="cuda, mps or cpu [the best there is]")
    types = ["float32", "bfloat16", "float16"]
    p.add_argument("--dtype", nargs="+", choices=types, default=types[:2], help="of the U-Net [float32 bfloat16]")
    kinds = ["unet", "sampling", "control", "garment", "training", "overhead"]  # as evaluation.bench.ROWS
    p.add_argument("--rows", nargs="+", choices=kinds, default=kinds, help="only these [all]")
    p.set_defaults(run=run.run_bench)


if __name__ == "__main__":
    sys.exit(main())
