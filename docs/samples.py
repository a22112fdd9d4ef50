"""What the tiny base draws from captions of test dolls: `python docs/samples.py` writes docs/samples.png.

Held-out combinations of garment, colour and pattern. Odd rows: the dolls that the captions describe; even rows: what is
drawn from the caption alone. These are the first sixteen pictures of `minicc evaluate base`, none of them chosen.
"""

from pathlib import Path

import minicc
from minicc.evaluation.base import FIRST, generate, pictures, test_dolls
from minicc.training.stages import grid

dolls = test_dolls(FIRST, 16)
truth = pictures(dolls)
drawn = generate(minicc.load("tiny"), [doll.caption for doll in dolls], steps=50, guidance=None, seed=0)
grid([truth[:8], drawn[:8], truth[8:], drawn[8:]]).save(Path(__file__).with_name("samples.png"))
