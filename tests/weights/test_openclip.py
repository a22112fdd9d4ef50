"""Trap 5: SD 2.x's text encoder, against OpenCLIP's tower written anew with torch's own attention."""

from pathlib import Path

import torch
from torch import Tensor, nn

from minicc.models.text import encode_text
from minicc.weights.layouts import TEXT, take
from tests.weights.conftest import Small, load_sd


class Block(nn.Module):
    """A residual block as OpenCLIP names it; q, k and v are stacked in `attn.in_proj`."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        h, later = self.ln_1(x), torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        x = x + self.attn(h, h, h, attn_mask=later, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Tower(nn.Module):
    """The text tower, all blocks; `forward` gives what Stable Diffusion 2 reads: the last but one, through ln_final."""

    def __init__(self, words: int, width: int, hidden: int, depth: int):
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(width, hidden) for _ in range(depth))})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, width))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        for block in self.transformer["resblocks"][:-1]:
            x = block(x)
        return self.ln_final(x)


@torch.no_grad()
def test_the_context_is_openclips_last_block_but_one_through_the_final_norm(tmp_path: Path, sd2: Small):
    tower = Tower(words=99, width=128, hidden=256, depth=4)
    tower.load_state_dict(take(sd2.state, TEXT + "model."), strict=True)
    ids = torch.randint(99, (2, 77), generator=torch.Generator().manual_seed(0))
    ours = encode_text(load_sd(sd2.save(tmp_path / "x.safetensors")).text_encoder, ids)
    torch.testing.assert_close(ours, tower(ids), rtol=1e-5, atol=1e-5)
    assert (ours - tower.transformer["resblocks"][-1](ours)).abs().max() > 1e-3  # the last block would change it
