"""What the attribute reader learns from."""

import pytest
import torch

from minicc.cli import main
from minicc.data.dolls.facts import FACTS
from minicc.reader import AttributeReader
from minicc.small import small_stable_diffusion
from minicc.training.commands import average
from minicc.training.data import in_range
from minicc.training.draws import Draws
from minicc.training.memory import estimate
from minicc.training.reader_stage import Labelled, ReaderStage, reconstructed


def test_half_of_the_dolls_are_mirrored_and_the_same_position_gives_the_same():
    image = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    data = Labelled({"image": image, "facts": torch.tensor([[1, 2]], dtype=torch.uint8)}, seed=0)
    seen = [data[0, position]["image"] for position in range(200)]
    mirrored = sum(torch.equal(x, in_range(image[0].flip(-1))) for x in seen)
    assert 70 < mirrored < 130
    assert sum(torch.equal(x, in_range(image[0])) for x in seen) == 200 - mirrored
    torch.testing.assert_close(data[0, 7]["image"], data[0, 7]["image"], rtol=0, atol=0)


def test_half_of_a_readers_pictures_go_through_the_vae_and_the_vae_learns_nothing():
    vae, x = small_stable_diffusion().vae, torch.rand(5, 3, 128, 128, generator=torch.manual_seed(0)) * 2 - 1
    again = reconstructed(vae, x)
    torch.testing.assert_close(again[::2], vae.decode(vae.encode(x[::2]).mean).clamp(-1, 1))
    torch.testing.assert_close(again[1::2], x[1::2], rtol=0, atol=0)
    stage = ReaderStage(AttributeReader(), vae)
    assert all(p.requires_grad != name.startswith("vae") for name, p in stage.named_parameters())
    batch = {"image": x, "facts": torch.zeros(5, len(FACTS), dtype=torch.uint8)}
    loss = stage(batch, Draws.at(0, 0))
    loss.backward()
    assert loss.isfinite()
    assert estimate(stage, batch).activations < estimate(ReaderStage(AttributeReader()), batch).activations * 1.01


def test_two_processes_with_half_the_readers_batch_each_have_the_loss_of_the_whole():
    torch.manual_seed(0)
    stage = ReaderStage(AttributeReader(), small_stable_diffusion().vae)
    batch = {"image": torch.rand(8, 3, 128, 128) * 2 - 1, "facts": torch.zeros(8, len(FACTS), dtype=torch.uint8)}
    halves = [{name: value.chunk(2)[rank] for name, value in batch.items()} for rank in range(2)]
    with torch.no_grad():
        whole = stage(batch, Draws.at(0, 3))
        parts = [stage(half, Draws.at(0, 3, rank, 2)) for rank, half in enumerate(halves)]
    torch.testing.assert_close(sum(parts) / 2, whole, atol=1e-5, rtol=1e-5)


def test_the_average_lies_between_both_readers_and_at_its_ends_is_one_of_them():
    a, b = AttributeReader(), AttributeReader()
    first, second = ([p.detach().clone() for p in reader.parameters()] for reader in (a, b))
    for share, expected in ((0.0, first), (0.25, [0.75 * x + 0.25 * y for x, y in zip(first, second, strict=True)])):
        average(a, b, share)
        assert all(torch.allclose(p, e, atol=1e-6) for p, e in zip(a.parameters(), expected, strict=True))
    average(a, b, 1.0)
    assert all(torch.equal(p, e) for p, e in zip(a.parameters(), second, strict=True))


@pytest.mark.parametrize("options", [["--old-share", "0.5"], ["--reader", "r", "--old-share", "1.5"]])
def test_a_share_of_no_reader_or_of_more_than_all_of_it_is_refused(tmp_path, capsys, options):
    assert main(["train", "reader", "--out", str(tmp_path / "run"), *options]) == 2
    assert "--old-share" in capsys.readouterr().err
