"""Clothes found by words alone: where the U-Net's cross-attention looks when a sentence names them. A baseline.

Prompt-to-prompt (Hertz et al. 2022, arXiv 2208.01626) shows that these maps follow the things named.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minicc.data.dolls import draw
from minicc.data.masks import clothes_in
from minicc.evaluation.base import pictures
from minicc.models.attention_maps import probabilities
from minicc.models.blocks import Recording, keys_values, transformers
from minicc.models.tokenizer import tokenize
from minicc.outfit.clothing import T, same_noise
from minicc.pipeline import StableDiffusion

SENTENCE = "a doll wearing a shirt, trousers, a dress, shoes and a hat"
WORDS = ("shirt", "trousers", "dress", "shoes", "hat")


@torch.no_grad()
def clothes_maps(sd: StableDiffusion, images: Tensor, t: int = T) -> Tensor:
    """The share of attention that lies on the garments' words, (B, H, W): the mean over heads and layers, enlarged.

    images: (B, 3, H, W) in [-1, 1], sides multiples of the stride; seen at timestep t with the detector's noise.
    The maps lie on the CPU.
    """
    z = sd.encode_image(images)
    context = Recording(keys_values(sd.unet, sd.encode_text([SENTENCE])))
    context.update({a: tuple(x.expand(len(z), -1, -1, -1) for x in kv) for a, kv in list(context.items())})
    sd.unet(sd.schedule.add_noise(z, same_noise(z), t), torch.full((len(z),), t, device=z.device), context)
    named = places(sd, WORDS)
    maps = []
    for block in transformers(sd.unet):
        on_words = probabilities(block.attn2, context.tokens[block.attn2], context[block.attn2][0])[..., named]
        maps.append(enlarged(on_words.sum(-1).mean(1), z.shape[-2:], images.shape[-2:]))
    return torch.stack(maps).mean(0).float().cpu()


def places(sd: StableDiffusion, words: Sequence[str]) -> list[int]:
    """Where the words' tokens stand in the sentence."""
    sentence = tokenize(sd.tokenizer, [SENTENCE])[0].tolist()
    found = []
    for word in words:
        ids = [i for i in tokenize(sd.tokenizer, [word])[0].tolist()[1:] if i != sd.tokenizer.eos_token_id and i]
        found += [k + j for k in range(len(sentence)) if sentence[k : k + len(ids)] == ids for j in range(len(ids))]
    return sorted(set(found))


def enlarged(tokens: Tensor, latents: torch.Size, size: torch.Size) -> Tensor:
    """(B, N) of a level whose sides are the latents' halved some times → (B, H, W)."""
    height, width = latents
    while height * width > tokens.shape[1]:
        height, width = (height + 1) // 2, (width + 1) // 2
    return F.interpolate(tokens.view(-1, 1, height, width), size, mode="bilinear")[:, 0]


def best_threshold(maps: Tensor, clothes: Tensor, steps: int = 64) -> float:
    """The threshold above which the maps (B, H, W) agree best with the labels, by IoU."""
    levels = torch.linspace(float(maps.min()), float(maps.max()), steps + 2)[:-1]
    overlaps = [((maps > x) & clothes).sum() / ((maps > x) | clothes).sum().clamp(min=1) for x in levels]
    return float(levels[int(torch.stack(overlaps).argmax())])


def words_curve(
    sd: StableDiffusion, images: Tensor, clothes: Tensor, labels: Sequence[int], batch: int = 8
) -> dict[str, float]:
    """N → clothes IoU, where N labelled training dolls only choose the threshold. clothes: (B, H, W) bool."""
    maps = torch.cat([clothes_maps(sd, x) for x in images.split(batch)])
    curve = {}
    for count in labels:
        dolls = [draw(i) for i in range(min(count, 100))]  # one number is learned: more would not change it
        known = torch.cat([clothes_maps(sd, x) for x in pictures(dolls).split(batch)])
        worn = torch.stack([torch.from_numpy(clothes_in(doll.index)) for doll in dolls])
        found = maps > best_threshold(known, worn)
        curve[str(count)] = ((found & clothes).sum() / (found | clothes).sum().clamp(min=1)).item()
    return curve
