"""Where a 3 × 3 convolution is faster as one matrix product: SD 1.5's lowest levels on this machine's CPU, in turns.

    python benchmarks/convolution.py [--rounds 7]

Forward passes, then forward and backward; ratios below 1 are gains of the product, which minicc/models/convolution.py
takes for at most FEW pixels and at least MANY weights.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from minicc.evaluation.bench import machine
from minicc.evaluation.compare import compare
from minicc.models.convolution import FEW, MANY, Product

CHANNELS = ((640, 640), (640, 1280), (1280, 1280), (1920, 1280), (2560, 1280))
PICTURES = ((1, 8), (2, 8), (1, 16), (2, 16))  # batch, side


def ratio(x: Tensor, weight: Tensor, bias: Tensor, rounds: int, learning: bool) -> float:
    """The product's time over the convolution's."""

    def timed(layer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(learning):
                y = layer(x, weight, bias)
                if learning:
                    torch.autograd.grad(y, (x, weight, bias), y)

        return run

    convolution = timed(lambda x, weight, bias: F.conv2d(x, weight, bias, padding=1))
    return compare("", timed(Product.apply), convolution, 1.0, rounds).ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each side is timed, in turns [7]")
    a = parser.parse_args()
    print(f"{machine(torch.device('cpu'))}; where the product is taken, its ratio is **bold**\n")
    print(f"| in → out, precision | {' | '.join(f'{b} × {s} × {s}' for b, s in PICTURES)} |")
    print("|---" * (1 + len(PICTURES)) + "|")
    for learning, dtype in product((False, True), (torch.float32, torch.bfloat16)):
        for i, o in CHANNELS:
            weight = (torch.randn(o, i, 3, 3, dtype=dtype) * 0.01).requires_grad_()
            bias, cells = torch.zeros(o, dtype=dtype, requires_grad=True), []
            for batch, side in PICTURES:
                x = torch.randn(batch, i, side, side, dtype=dtype, requires_grad=True)
                found = f"{ratio(x, weight, bias, a.rounds, learning):.2f}"
                taken = batch * side * side <= FEW and weight.numel() >= MANY
                cells.append(f"**{found}**" if taken else found)
            name = f"{i} → {o}, {str(dtype).removeprefix('torch.')}{', and backward' * learning}"
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
