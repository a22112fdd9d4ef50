"""minicc beside diffusers on identical weights, in one run: the ratio is the figure, the times show the machine."""

import platform
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from minicc.data.tensors import to_image, to_tensor
from minicc.diffusion.ddim import ddim_sample
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from minicc.evaluation.compare import HEADER, PROFILE, Row, compare
from minicc.hinted import Hinted
from minicc.models.ablations import gaussian_controlnet
from minicc.models.configs import TextConfig, UNetConfig, VAEConfig
from minicc.models.controlnet import ControlNet, trainable
from minicc.models.garment_ways import in_way
from minicc.models.text import text_encoder
from minicc.models.tokenizer import load_tokenizer
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.models.zero_conv import lock
from minicc.outfit import phase1, phase2
from minicc.pipeline import StableDiffusion, default_device, usable
from minicc.training.tiny import UNET, VAE_CONFIG


def reference() -> Any:
    try:
        import diffusers
    except ImportError as missing:
        raise Error("the comparison needs diffusers: pip install 'minicc[dev]'") from missing
    diffusers.utils.logging.set_verbosity_error()
    return diffusers


def mirror(ours: nn.Module, kind: str, config: dict[str, Any]) -> Any:
    """diffusers' model of that class on the same weights, in the same memory."""
    with torch.device("meta"):
        theirs = getattr(reference(), kind)(**config)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    return theirs.requires_grad_(True).to(ours.conv_in.weight.device)  # type: ignore[union-attr]


def unet_rows(
    config: UNetConfig, name: str, dtype: torch.dtype, device: torch.device, batch: int, rounds: int
) -> Iterator[Row]:
    """Forward, and forward with backward, of one U-Net."""
    ours = UNet(config).to(device, dtype)
    theirs = mirror(ours, "UNet2DConditionModel", ours.config.to_config())
    x, t, context = inputs(config, dtype, device, batch)
    label = f"{name}, {str(dtype).removeprefix('torch.')}, batch {batch}"
    with torch.no_grad():
        yield compare(
            f"U-Net forward, {label}", lambda: ours(x, t, context), lambda: theirs(x, t, context).sample, 0.95, rounds
        )
    yield compare(
        f"U-Net forward + backward, {label}",
        lambda: ours(x, t, context).square().mean().backward(),
        lambda: theirs(x, t, context).sample.square().mean().backward(),
        0.95,
        rounds,
    )


def inputs(
    config: UNetConfig, dtype: torch.dtype, device: torch.device, batch: int, side: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Random latents, timesteps and context; side: of the latents, the model's own if None."""
    generator = torch.Generator().manual_seed(0)
    side = side or config.sample_size
    x = torch.randn(batch, config.in_channels, side, side, generator=generator).to(device, dtype)
    context = torch.randn(batch, 77, config.cross_attention_dim, generator=generator).to(device, dtype)
    return x, torch.full((batch,), 500, device=device), context


def noise(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    """Uniform in [0, 1), on the device and in the type of `like`."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(like)


def sampling_row(sd: StableDiffusion, control: ControlNet | None, steps: int, rounds: int) -> Row:
    """Guided DDIM steps, with a ControlNet or without: our pipeline against diffusers', from sentence to picture."""
    pipe = their_pipeline(sd, control)
    side, latent = sd.side, sd.unet.config.sample_size
    hint = noise(1, 3, side, side, like=sd.unet.conv_in.weight)
    x = torch.randn(1, 4, latent, latent, generator=torch.Generator().manual_seed(0)).to(hint)
    shown = {"image": hint} if control else {}

    def ours() -> Any:
        prompt, empty = sd.encode_text(["a red dress"]), sd.encode_text([""])
        model = sd.guided(prompt, empty, 7.5, controls=[Hinted.of(control, hint)] if control else [])
        z = ddim_sample(model, x, sd.schedule, steps=steps)
        del model  # as StableDiffusion.generate does
        return sd.decode_image(z)

    def theirs() -> Any:
        return pipe("a red dress", **shown, num_inference_steps=steps, latents=x, height=side, width=side).images[0]

    with torch.no_grad():
        difference = (to_tensor(ours()) - to_tensor(theirs())).abs().max().item()
    if difference > 3 / 127.5:
        raise Error(f"the two pipelines paint different pictures ({difference:.3f} of 2 at most): nothing to compare")
    what = f"{steps} guided DDIM steps{' with ControlNet' if control else ''}"
    return compare(what, ours, theirs, 0.85 if control else 0.95, rounds)


def their_pipeline(sd: StableDiffusion, control: ControlNet | None) -> Any:
    """diffusers' pipeline of the same weights."""
    d = reference()
    unet = mirror(sd.unet, "UNet2DConditionModel", sd.unet.config.to_config())
    parts = {"vae": mirror_vae(sd.vae), "text_encoder": sd.text_encoder, "tokenizer": sd.tokenizer, "unet": unet}
    extras = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts |= {"scheduler": d.DDIMScheduler.from_config(sd.schedule.to_config())} | extras
    if control is None:
        pipe = d.StableDiffusionPipeline(**parts)
    else:
        net = mirror(control, "ControlNetModel", control.to_config())
        pipe = d.StableDiffusionControlNetPipeline(**parts, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def mirror_vae(vae: VAE) -> Any:
    with torch.device("meta"):
        theirs = reference().AutoencoderKL(**vae.config.to_config())
    theirs.load_state_dict(vae.state_dict(), strict=True, assign=True)
    return theirs


def training_row(sd: StableDiffusion, batch: int, rounds: int) -> Row:
    """A step of phase-1 training with cached latents and texts, against one of diffusers' ControlNet example.

    The example encodes picture and caption in every step; both do forward, backward and AdamW on the same batch, ours
    in one kernel, as in training/start.py.
    """
    side = sd.side
    image = noise(batch, 3, side, side, like=sd.unet.conv_in.weight) * 2 - 1
    z, context = sd.encode_image(image), sd.encode_text(["a red dress"] * batch)
    hint, t = (image + 1) / 2, torch.full((batch,), 500, device=sd.device)
    ours = gaussian_controlnet(sd.unet, torch.Generator().manual_seed(0))  # so that it says something
    copies = deepcopy(ours)
    optimizer = torch.optim.AdamW(trainable(sd.unet, ours), fused=True)
    net = mirror(copies, "ControlNetModel", copies.to_config())
    unet = mirror(sd.unet, "UNet2DConditionModel", sd.unet.config.to_config()).requires_grad_(False)
    vae, their_optimizer = mirror_vae(sd.vae).requires_grad_(False), torch.optim.AdamW(net.parameters())

    def step(loss: Tensor, chosen: torch.optim.Optimizer) -> None:
        loss.backward()
        chosen.step()
        chosen.zero_grad()

    def predicted(x: Tensor) -> Tensor:
        return sd.unet(x, t, context, ours(x, t, context, hint))

    def their_predicted(x: Tensor, text: Tensor) -> Tensor:
        skips, middle = net(x, t, text, hint, return_dict=False)
        return unet(x, t, text, down_block_additional_residuals=skips, mid_block_additional_residual=middle).sample

    def mine() -> None:
        eps = torch.randn_like(z)
        step(F.mse_loss(predicted(sd.schedule.add_noise(z, eps, t)), eps), optimizer)

    def example() -> None:
        latents = vae.encode(image).latent_dist.sample() * vae.config.scaling_factor
        eps, text = torch.randn_like(latents), sd.encode_text(["a red dress"] * batch)
        step(F.mse_loss(their_predicted(sd.schedule.add_noise(latents, eps, t), text), eps), their_optimizer)

    with torch.no_grad():
        theirs = their_predicted(z, context)
        difference = (predicted(z) - theirs).abs().max() / theirs.abs().max()
    if not difference <= 0.03:  # bfloat16's rounding, summed
        raise Error(f"the two sides predict different noise ({difference:.3f} of the largest): nothing to compare")
    return compare(f"phase-1 training step, batch {batch}", mine, example, 0.6, rounds)


def overhead_row(sd: StableDiffusion, batch: int, rounds: int) -> Row:
    """Training a ControlNet against fine-tuning the base without one, both ours (the paper's section on training).

    Memory is all that a training holds: weights, gradients, AdamW's two numbers a trained weight, activations. Time is
    that of the gradients; AdamW's step, longer the more learns, would make the ratio smaller.
    """
    x, t, context = inputs(sd.unet.config, sd.dtype, sd.device, batch)
    hint = noise(batch, 3, sd.side, sd.side, like=x)
    control = ControlNet.from_unet(sd.unet)
    base = UNet(sd.unet.config).to(x)
    base.load_state_dict(sd.unet.state_dict())
    trainable(sd.unet, control)

    def with_control() -> None:
        sd.unet(x, t, context, control(x, t, context, hint)).square().mean().backward()

    def without() -> None:
        base(x, t, context).square().mean().backward()

    weights, copy = (sum(p.nbytes for p in module.parameters()) for module in (sd.unet, control))
    what = f"ControlNet training over fine-tuning the base, batch {batch}"
    return compare(what, with_control, without, 1.34, rounds, memory_goal=1.23, held=(weights + 4 * copy, 4 * weights))


def garment_row(sd: StableDiffusion, control: ControlNet, steps: int, rounds: int) -> Row:
    """Dressing a character from a garment's picture against redressing it from a sentence, both ours.

    control: of the way that ships; without a garment its added layers cost nothing.
    """
    character = to_image(noise(1, 3, sd.side, sd.side, like=torch.empty(0)) * 2 - 1)
    mask = np.zeros((sd.side, sd.side), bool)
    middle = slice(sd.side // 4, 3 * sd.side // 4)
    mask[middle, middle] = True
    garment = Image.fromarray(np.where(mask[..., None], (200, 30, 60), 255).astype(np.uint8))

    def wear() -> None:
        phase2.generate(sd, control, character, garment, mask=mask, steps=steps)

    def redress() -> None:
        phase1.generate(sd, control, character, mask, "a red dress", steps=steps)

    what = f"{steps} steps of phase 2 over phase 1"
    return compare(what, wear, redress, 1.25, rounds, memory_goal=1.25)


ROWS = ("unet", "sampling", "control", "garment", "training", "overhead")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def bench(
    size: str = "tiny", rounds: int = 5, device: str | None = None, dtypes: Sequence[str] = ("float32", "bfloat16"),
    chosen: Sequence[str] = ROWS,
) -> Iterator[str]:  # fmt: skip
    """The whole table, line by line, the machine first; then where the time of the rows goes that miss a goal.

    size: "tiny", or "full" for Stable Diffusion 1.5's. dtypes: of the U-Net's rows; the others are computed in the
    first of them. chosen: which rows.
    """
    if rounds < 1:
        raise Error(f"--rounds {rounds}: a median is taken of 1 or more")
    place = usable(device) if device else default_device()
    yield f"{machine(place)}; median of {rounds}\n"
    yield HEADER
    missed = []
    for row in rows(size, rounds, place, [DTYPES[dtype] for dtype in dtypes], chosen):
        yield str(row)
        missed += [] if row.met else [row.profile]
    if missed:
        yield f"\nwhere the goal is missed: milliseconds by kind of operation, of both sides\n\n{PROFILE}"
        yield from missed


def rows(
    size: str, rounds: int, place: torch.device, dtypes: Sequence[torch.dtype], chosen: Sequence[str] = ROWS
) -> Iterator[Row]:
    """The chosen comparisons."""
    sd = random_stable_diffusion(size).to(place, dtypes[0])
    batch = 8 if size == "tiny" else 1
    steps = 5 if size == "full" and place.type == "cpu" else 50
    for dtype in dtypes if "unet" in chosen else ():
        yield from unet_rows(sd.unet.config, size, dtype, place, batch, rounds)
    if "sampling" in chosen:
        yield sampling_row(sd, None, steps, rounds)
    if "control" in chosen:
        yield sampling_row(sd, ControlNet.from_unet(sd.unet), steps, rounds)
    if "garment" in chosen:
        yield garment_row(sd, in_way(ControlNet.from_unet(sd.unet), "decoder"), steps, rounds)
    if "training" in chosen:
        yield training_row(sd, batch, rounds)
    if "overhead" in chosen:
        yield overhead_row(sd, batch, rounds)


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    return f"torch {torch.__version__}, {device.type} ({processor()}), {torch.get_num_threads()} threads"


def processor() -> str:
    """The CPU's name as Linux tells it; elsewhere what Python knows."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def random_stable_diffusion(size: str) -> StableDiffusion:
    """Random weights in the shape of the tiny model or of Stable Diffusion 1.5: speed does not depend on them."""
    tiny_text = TextConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=2)
    unet, vae, text = (UNET, VAE_CONFIG, tiny_text) if size == "tiny" else (UNetConfig(), VAEConfig(), TextConfig())
    models = (lock(UNet(unet)), lock(VAE(vae)), lock(text_encoder(text)))
    return StableDiffusion(*models, load_tokenizer(), NoiseSchedule(), f"{size}, random")
