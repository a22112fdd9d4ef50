"""minicc beside diffusers on identical weights, in one run: the ratio is the figure, the times show the machine.

Each pair is timed in turns, so that whatever else the machine does falls on both; the median of the rounds counts.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicc.data.tensors import to_tensor
from minicc.diffusion.ddim import ddim_sample
from minicc.diffusion.schedule import NoiseSchedule
from minicc.errors import Error
from minicc.models.configs import TextConfig, UNetConfig, VAEConfig
from minicc.models.controlnet import ControlNet, trainable
from minicc.models.text import text_encoder
from minicc.models.tokenizer import load_tokenizer
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.models.zero_conv import lock
from minicc.pipeline import Hinted, StableDiffusion
from minicc.training.tiny import UNET, VAE_CONFIG


@dataclass(frozen=True)
class Row:
    """One comparison."""

    what: str
    ours: float  # seconds, median
    theirs: float
    goal: float  # the ratio that is to be reached

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    def __str__(self) -> str:
        met = "yes" if self.ratio <= self.goal else "NO"
        return f"| {self.what} | {self.ours:.3f} | {self.theirs:.3f} | {self.ratio:.2f} | ≤ {self.goal:.2f} | {met} |"


HEADER = "| | minicc, s | diffusers, s | ratio | goal | met |\n|---|---|---|---|---|---|"


def compare(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], goal: float, rounds: int = 5) -> Row:
    """Time both in turns, `rounds` times each after one round that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds + 1):
        for side, run in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            run()
            if round_:
                side.append(time.perf_counter() - start)
    return Row(what, statistics.median(times[0]), statistics.median(times[1]), goal)


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


def unet_rows(config: UNetConfig, name: str, dtype: torch.dtype, batch: int, rounds: int) -> Iterator[Row]:
    """Forward, and forward with backward, of one U-Net."""
    ours = UNet(config).to(dtype)
    theirs = mirror(ours, "UNet2DConditionModel", ours.config.to_config())
    x, t, context = inputs(config, dtype, batch)
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


def inputs(config: UNetConfig, dtype: torch.dtype, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = config.sample_size
    x = torch.randn(batch, config.in_channels, side, side, generator=generator).to(dtype)
    context = torch.randn(batch, 77, config.cross_attention_dim, generator=generator).to(dtype)
    return x, torch.full((batch,), 500), context


def sampling_row(sd: StableDiffusion, control: ControlNet, steps: int, rounds: int) -> Row:
    """Guided DDIM steps with a ControlNet: our pipeline against diffusers', from the sentence to the picture."""
    d = reference()
    net = mirror(control, "ControlNetModel", control.to_config())
    unet = mirror(sd.unet, "UNet2DConditionModel", sd.unet.config.to_config())
    vae = mirror_vae(sd.vae)
    scheduler = d.DDIMScheduler.from_config(sd.schedule.to_config())
    parts = {"vae": vae, "text_encoder": sd.text_encoder, "tokenizer": sd.tokenizer, "unet": unet, "controlnet": net}
    extras = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = d.StableDiffusionControlNetPipeline(**parts, scheduler=scheduler, **extras)
    pipe.set_progress_bar_config(disable=True)
    side, latent = sd.side, sd.unet.config.sample_size
    hint = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 4, latent, latent, generator=torch.Generator().manual_seed(0))

    def ours() -> Any:
        prompt, empty = sd.encode_text(["a red dress"]), sd.encode_text([""])
        model = sd.guided(prompt, empty, 7.5, controls=[Hinted.of(control, hint)])
        return sd.decode_image(ddim_sample(model, x, sd.schedule, steps=steps))

    def theirs() -> Any:
        return pipe("a red dress", image=hint, num_inference_steps=steps, latents=x, height=side, width=side).images[0]

    with torch.no_grad():
        difference = (to_tensor(ours()) - to_tensor(theirs())).abs().max().item()
    if difference > 3 / 127.5:
        raise Error(f"the two pipelines paint different pictures ({difference:.3f} of 2 at most): nothing to compare")
    return compare(f"{steps} guided DDIM steps with ControlNet", ours, theirs, 0.85, rounds)


def mirror_vae(vae: VAE) -> Any:
    with torch.device("meta"):
        theirs = reference().AutoencoderKL(**vae.config.to_config())
    theirs.load_state_dict(vae.state_dict(), strict=True, assign=True)
    return theirs


def training_row(sd: StableDiffusion, batch: int, rounds: int) -> Row:
    """A step of phase-1 training with cached latents and texts, against one of diffusers' ControlNet example.

    The example encodes picture and caption in every step; both do forward, backward and AdamW on the same batch.
    """
    side = sd.side
    image = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z, context = sd.encode_image(image), sd.encode_text(["a red dress"] * batch)
    hint, t = (image + 1) / 2, torch.randint(1000, (batch,), generator=torch.Generator().manual_seed(1))
    ours, copies = ControlNet.from_unet(sd.unet), ControlNet.from_unet(sd.unet)
    optimizer = torch.optim.AdamW(trainable(sd.unet, ours))
    net = mirror(copies, "ControlNetModel", copies.to_config())
    unet = mirror(sd.unet, "UNet2DConditionModel", sd.unet.config.to_config()).requires_grad_(False)
    vae, their_optimizer = mirror_vae(sd.vae).requires_grad_(False), torch.optim.AdamW(net.parameters())

    def step(loss: Tensor, chosen: torch.optim.Optimizer) -> None:
        loss.backward()
        chosen.step()
        chosen.zero_grad()

    def mine() -> None:
        noise = torch.randn_like(z)
        x = sd.schedule.add_noise(z, noise, t)
        step(F.mse_loss(sd.unet(x, t, context, ours(x, t, context, hint)), noise), optimizer)

    def example() -> None:
        latents = vae.encode(image).latent_dist.sample() * vae.config.scaling_factor
        noise, text = torch.randn_like(latents), sd.encode_text(["a red dress"] * batch)
        x = sd.schedule.add_noise(latents, noise, t)
        skips, middle = net(x, t, text, hint, return_dict=False)
        out = unet(x, t, text, down_block_additional_residuals=skips, mid_block_additional_residual=middle).sample
        step(F.mse_loss(out, noise), their_optimizer)

    return compare(f"phase-1 training step, batch {batch}", mine, example, 0.6, rounds)


def overhead_row(sd: StableDiffusion, batch: int, rounds: int) -> Row:
    """Training a ControlNet against fine-tuning the base without one, both ours (the paper's section on training)."""
    x, t, context = inputs(sd.unet.config, torch.float32, batch)
    hint = torch.rand(batch, 3, sd.side, sd.side, generator=torch.Generator().manual_seed(0))
    control = ControlNet.from_unet(sd.unet)
    base = UNet(sd.unet.config)
    base.load_state_dict(sd.unet.state_dict())
    trainable(sd.unet, control)

    def with_control() -> None:
        sd.unet(x, t, context, control(x, t, context, hint)).square().mean().backward()

    def without() -> None:
        base(x, t, context).square().mean().backward()

    return compare(f"ControlNet training over fine-tuning the base, batch {batch}", with_control, without, 1.34, rounds)


def bench(size: str = "tiny", rounds: int = 5) -> Iterator[str]:
    """The whole table, line by line, the machine first. size: "tiny", or "full" for Stable Diffusion 1.5's."""
    sd = random_stable_diffusion(size)
    control = ControlNet.from_unet(sd.unet)
    batch, dtypes = (8, (torch.float32, torch.bfloat16)) if size == "tiny" else (1, (torch.float32,))
    threads = f"{torch.get_num_threads()} threads"
    yield f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {threads}; median of {rounds}\n"
    yield HEADER
    for dtype in dtypes:
        yield from map(str, unet_rows(sd.unet.config, size, dtype, batch, rounds))
    yield str(sampling_row(sd, control, 50 if size == "tiny" else 5, rounds))
    yield str(training_row(sd, batch, rounds))
    yield str(overhead_row(sd, batch, rounds))


def random_stable_diffusion(size: str) -> StableDiffusion:
    """Random weights in the shape of the tiny model or of Stable Diffusion 1.5: speed does not depend on them."""
    tiny_text = TextConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=2)
    unet, vae, text = (UNET, VAE_CONFIG, tiny_text) if size == "tiny" else (UNetConfig(), VAEConfig(), TextConfig())
    models = (lock(UNet(unet)), lock(VAE(vae)), lock(text_encoder(text)))
    return StableDiffusion(*models, load_tokenizer(), NoiseSchedule(), f"{size}, random")
