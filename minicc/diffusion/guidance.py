"""Guidance: pushing the noise prediction towards a text (classifier-free) or towards a class (a noisy classifier)."""

from collections.abc import Callable

import torch
from torch import Tensor

from minicc.diffusion.schedule import NoiseSchedule
from minicc.diffusion.steps import Model
from minicc.errors import Error


def classifier_free_guidance(cond: Tensor, uncond: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """Away from the empty prompt, towards the text.

    Ho & Salimans 2022, arXiv 2207.12598, eq. 6, with scale = 1 + w; rescale: Lin et al. 2023, arXiv 2305.08891, 3.4.

        ε̃ = ε_u + scale · (ε_c − ε_u)
        ε̃ ← φ · ε̃ · std(ε_c)/std(ε̃) + (1 − φ) · ε̃

    cond, uncond: (B, …), ε or v. scale: 1 is the condition alone, 0 none. rescale: φ, 0 … 1; v models with zero
    terminal SNR want 0.7, against over-exposure. The std is over each picture.
    """
    if not 0 <= rescale <= 1:
        raise Error(f"rescale={rescale}: expected 0 (none) … 1 (all); 0.7 is the paper's choice for v models")
    guided = uncond + scale * (cond - uncond)
    if rescale == 0:
        return guided
    dims = tuple(range(1, cond.ndim))
    matched = guided * (cond.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def guided(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    uncond_context: Tensor,
    scale: float,
    rescale: float = 0.0,
) -> Model:
    """The (x, t) -> output that samplers want, out of model(x, t, context): both branches in one call.

    context: (B, L, D). uncond_context: (B, L, D), or (1, L, D) for all. With scale = 1 only the condition is run.
    """
    if uncond_context.shape[1:] != context.shape[1:] or uncond_context.shape[0] not in (1, context.shape[0]):
        raise Error(
            f"uncond_context is {tuple(uncond_context.shape)} but context is {tuple(context.shape)}: "
            "encode the empty prompt with the same text encoder, once or once a picture"
        )
    if scale == 1:
        return lambda x, t: model(x, t, context)
    both = torch.cat([uncond_context.expand_as(context), context])  # (2B, L, D)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        uncond, cond = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return classifier_free_guidance(cond, uncond, scale, rescale)

    return predict


def classifier_guidance(
    eps: Tensor,
    x_t: Tensor,
    t: int | Tensor,
    log_prob: Callable[[Tensor, int | Tensor], Tensor],
    scale: float,
    schedule: NoiseSchedule,
) -> Tensor:
    """Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 2, with the strength of section 4.3.

        ε̂ = ε − scale · √(1−ᾱ_t) ∇_{x_t} log p(y | x_t)

    The minus: ε points up the noise, the score down it, ∇ log p(x_t) = −ε/√(1−ᾱ_t). eps, x_t: (B, …).
    log_prob: (x_t, t) -> (B,), the classifier's log p(y | x_t) of the wanted class at that noise level.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_prob(x, t).sum(), x)
    _, s = schedule.signal_and_noise(t, x_t)
    return (eps - scale * s * gradient).to(eps.dtype)
