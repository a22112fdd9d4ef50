"""What --channels-last and --compile gain on this machine: the tiny models with and without, in turns.

    python benchmarks/options.py [--rounds 7]

Ratios below 1 are gains. The first call of a compiled model, which takes minutes, is told apart.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from minicc.evaluation.bench import inputs, machine
from minicc.evaluation.compare import compare, seconds
from minicc.models.unet import UNet
from minicc.models.vae import VAE
from minicc.training.tiny import UNET, VAE_CONFIG

BATCH = {"U-Net": 24, "VAE": 8}  # as the shipped weights were trained


def step(model: nn.Module, given: tuple[Tensor, ...], half: bool) -> Callable[[], None]:
    """A training step without its optimizer: forward, backward."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(*given).square().mean()
        loss.backward()
        model.zero_grad()

    return run


class There(nn.Module):
    """A VAE as one function: pictures → pictures."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(x).mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each side is timed, in turns [7]")
    a = parser.parse_args()
    place = torch.device("cpu")
    print(machine(place))
    unet, vae = UNet(UNET), There(VAE(VAE_CONFIG))
    given = {
        "U-Net": inputs(UNET, torch.float32, place, BATCH["U-Net"]),
        "VAE": (torch.rand(BATCH["VAE"], 3, 128, 128) * 2 - 1,),
    }
    for name, model in (("U-Net", unet), ("VAE", vae)):
        last = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for half in (False, True):
            sides = (step(one, given[name], half) for one in (last, model))
            found = compare("", *sides, 1.0, a.rounds)
            print(f"{name} channels-last, {'bf16' if half else 'float32'}: {found.ratio:.2f}", flush=True)
    compiled, one = deepcopy(unet).eval(), inputs(UNET, torch.float32, place, 2)
    compiled.compile()
    with torch.no_grad():
        print(f"U-Net compiled: first call {seconds(lambda: compiled(*one)):.0f} s", flush=True)
        found = compare("", lambda: compiled(*one), lambda: unet.eval()(*one), 1.0, 5 * a.rounds)
    print(f"U-Net compiled, forward, batch 2: {found.ratio:.2f}")


if __name__ == "__main__":
    main()
