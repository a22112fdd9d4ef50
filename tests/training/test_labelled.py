"""What the attribute reader learns from."""

import torch

from minicc.training.data import in_range
from minicc.training.reader_stage import Labelled


def test_half_of_the_dolls_are_mirrored_and_the_same_position_gives_the_same():
    image = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    data = Labelled({"image": image, "facts": torch.tensor([[1, 2]], dtype=torch.uint8)}, seed=0)
    seen = [data[0, position]["image"] for position in range(200)]
    mirrored = sum(torch.equal(x, in_range(image[0].flip(-1))) for x in seen)
    assert 70 < mirrored < 130
    assert sum(torch.equal(x, in_range(image[0])) for x in seen) == 200 - mirrored
    torch.testing.assert_close(data[0, 7]["image"], data[0, 7]["image"], rtol=0, atol=0)
