"""What the attribute reader learns from."""

import torch

from minicc.evaluation.reader import AttributeReader
from minicc.small import small_stable_diffusion
from minicc.training.data import in_range
from minicc.training.draws import Draws
from minicc.training.reader_stage import Labelled, ReaderStage, reconstructed


def test_half_of_the_dolls_are_mirrored_and_the_same_position_gives_the_same():
    image = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    data = Labelled({"image": image, "facts": torch.tensor([[1, 2]], dtype=torch.uint8)}, seed=0)
    seen = [data[0, position]["image"] for position in range(200)]
    mirrored = sum(torch.equal(x, in_range(image[0].flip(-1))) for x in seen)
    assert 70 < mirrored < 130
    assert sum(torch.equal(x, in_range(image[0])) for x in seen) == 200 - mirrored
    torch.testing.assert_close(data[0, 7]["image"], data[0, 7]["image"], rtol=0, atol=0)


def test_about_half_of_a_readers_pictures_go_through_the_vae_and_the_vae_learns_nothing():
    vae, x = small_stable_diffusion().vae, torch.rand(64, 3, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    again = reconstructed(vae, x, Draws.at(0, 0))
    through = (again != x).flatten(1).any(1)
    assert 20 < through.sum() < 44
    torch.testing.assert_close(again[through], vae.decode(vae.encode(x[through]).mean).clamp(-1, 1))
    assert not [
        name
        for name, p in ReaderStage(AttributeReader(), vae).named_parameters()
        if name.startswith("vae") and p.requires_grad
    ]
