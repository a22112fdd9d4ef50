"""Table 1 of the DDIM paper in our world: how far the pictures are from true ones, by steps S and noise η.

Song et al. 2020 (arXiv 2010.02502), table 1, with the attribute reader's features in place of Inception's. Every cell
draws the same captions from the same noise, without guidance, as the paper's models have none.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from minicc.data.dolls import draw
from minicc.diffusion.ddim import ddim_sample
from minicc.diffusion.dpm_solver import dpm_solver_sample
from minicc.diffusion.steps import Model
from minicc.errors import Error
from minicc.evaluation.base import first_doll, pictures, test_dolls
from minicc.evaluation.metrics import frechet
from minicc.evaluation.vae import reconstructed
from minicc.pipeline import StableDiffusion
from minicc.reader import AttributeReader
from minicc.training.cache import digest_of, kept

STEPS = (10, 20, 50, 100, 1000)
ETAS = ("0", "0.2", "0.5", "1", "σ̂")
BATCH = 20


@dataclass(frozen=True)
class Cell:
    """One cell: a sampler, its steps, and how much noise each step draws (σ̂: DDPM's larger variance)."""

    steps: int
    eta: str
    solver: str = "DDIM"

    @property
    def name(self) -> str:
        return f"{self.solver} S={self.steps} η={self.eta}"

    def sample(self, model: Model, x: Tensor, sd: StableDiffusion, generator: torch.Generator) -> Tensor:
        """x_0 (B, …) from x = x_T. Timesteps begin at 0: with Stable Diffusion's offset of 1, a thousand do not fit.

        generator: of the steps' noise; that which drew x_T may go on, another of its seed would draw x_T again.
        """
        schedule = replace(sd.schedule, steps_offset=0)
        if self.solver != "DDIM":
            return dpm_solver_sample(model, x, schedule, self.steps)
        hat = self.eta == "σ̂"
        eta = 1.0 if hat else float(self.eta)
        return ddim_sample(model, x, schedule, self.steps, eta=eta, sigma_hat=hat, generator=generator)


CELLS = (Cell(15, "0", "DPM-Solver++"), *(Cell(steps, eta) for steps in STEPS for eta in ETAS))


def table1(
    sd: StableDiffusion, reader: AttributeReader, out: Path, n: int = 500, n_longest: int = 200, seed: int = 0,
    cells: Sequence[Cell] = CELLS, bf16: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Every cell's Fréchet distance to the n true test dolls of its captions, by `key`; of "others": n other true
    dolls, and "through the VAE": these dolls as the VAE gives them back, no U-Net involved.

    A Fréchet distance falls with the number of pictures, so each is measured of the first n_longest as well: those at
    the most steps are no more. out: folder of finished batches of latents: a run that was stopped samples from the last
    on. cells: not all of them, but these. bf16: the U-Net computes under autocast; x stays float32. Raises Error for
    n_longest below 2 or above n.
    """
    if not 2 <= n_longest <= n:
        raise Error(
            f"n={n}, n_longest={n_longest}: populations are compared, expected at least 2 pictures, and n the more"
        )
    first = first_doll(seed)
    images, others = (pictures(test_dolls(first + offset, n)) for offset in (0, n))
    truth = reader.embed(images)
    figures = of_all_and_few("others", reader.embed(others), truth, n_longest)
    figures |= of_all_and_few("through the VAE", reader.embed(reconstructed(sd.vae, images)), truth, n_longest)
    for cell in cells:
        latents = batches(cell, sd, out, n_longest if cell.steps == max(STEPS) else n, seed, bf16)
        features = torch.cat([reader.embed(sd.decode_latents(z).cpu()) for z in latents])
        measured = of_all_and_few(cell.name, features, truth, n_longest)
        print(measured, flush=True)
        figures |= measured
    if len(cells) == len(CELLS):
        asked = {"n": n, "n_longest": n_longest, "seed": seed, "bf16": bf16}
        (out / "table1.json").write_text(json.dumps(asked | figures, indent=1, ensure_ascii=False))
    return figures


def of_all_and_few(name: str, features: Tensor, truth: Tensor, few: int) -> dict[str, float]:
    """Fréchet distances of all features, and of the first few, to as many of the truth's."""
    counts = sorted({min(few, len(features)), len(features)}, reverse=True)
    return {key(name, count): frechet(features[:count], truth[:count]) for count in counts}


def key(name: str, count: int) -> str:
    return f"{name}, n={count}"


def batches(cell: Cell, sd: StableDiffusion, out: Path, count: int, seed: int, bf16: bool) -> Iterator[Tensor]:
    """A cell's latents, batch by batch; what is on disk is not computed again, whatever decoder or judge came since."""
    digest = digest_of(sd.unet, sd.text_encoder, cell.name, seed, BATCH, bf16, "one generator")
    for start in trange(0, count, BATCH, desc=cell.name):
        first, size = first_doll(seed) + start, min(BATCH, count - start)
        captions = [draw(first + i, split="test", combinations="heldout").caption for i in range(size)]
        make = once(cell, sd, captions, first, bf16)
        path = out / f"{cell.name} {start:05}-{size}.safetensors"
        yield kept(path, digest_of(digest, captions), make)["latents"]


def once(
    cell: Cell, sd: StableDiffusion, captions: Sequence[str], seed: int, bf16: bool
) -> Callable[[], dict[str, Tensor]]:
    """What draws the latents of a batch of captions, from one seed."""

    def make() -> dict[str, Tensor]:
        shape = (len(captions), 4, sd.side // 8, sd.side // 8)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=generator).to(sd.device, torch.float32 if bf16 else sd.dtype)
        context = sd.encode_text(captions)
        with torch.no_grad(), torch.autocast(sd.device.type, torch.bfloat16, enabled=bf16):
            z = cell.sample(sd.guided(context, context, 1.0), x, sd, generator)
        return {"latents": z.cpu()}

    return make


def markdown(figures: dict[str, float], n: int, n_longest: int) -> str:
    """The table as it stands in the model card: the distance over n pictures, in brackets over n_longest."""
    lines = ["| S | " + " | ".join(f"η = {eta}" for eta in ETAS) + " |", "|---" * (len(ETAS) + 1) + "|"]
    for steps in STEPS:
        row = [written(figures, Cell(steps, eta).name, n, n_longest) for eta in ETAS]
        lines.append(f"| {steps} | " + " | ".join(row) + " |")
    beside = (CELLS[0].name, "through the VAE", "others")
    return "\n".join([*lines, "", "; ".join(f"{name}: {written(figures, name, n, n_longest)}" for name in beside)])


def written(figures: dict[str, float], name: str, n: int, n_longest: int) -> str:
    of_all, of_few = figures.get(key(name, n)), figures[key(name, n_longest)]
    return f"({of_few:.0f})" if of_all is None else f"{of_all:.0f} ({of_few:.0f})"
