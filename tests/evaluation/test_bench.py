"""The rows of `minicc bench`: each computes what it says, on both sides; the ratios are not judged here."""

from collections import Counter
from copy import deepcopy

import pytest
import torch

from minicc.cli import main, parser
from minicc.errors import Error
from minicc.evaluation import bench
from minicc.evaluation.compare import HEADER, KINDS, PROFILE, REST, Row, by_kind, shortest
from minicc.small import small_controlnet, small_stable_diffusion

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def sd():
    return small_stable_diffusion()


def complete(row) -> bool:
    """Whether all was measured, and fills the table."""
    measured = min(row.ours, row.theirs, row.our_peak, row.their_peak) > 0
    return measured and str(row).count("|") == HEADER.splitlines()[0].count("|")


def test_the_pipelines_that_are_timed_paint_the_same_picture(sd):
    """`sampling_row` raises if they do not: with other weights than ours it has nothing to compare."""
    assert complete(bench.sampling_row(sd, small_controlnet(sd), steps=2, rounds=1))
    assert complete(bench.sampling_row(sd, None, steps=2, rounds=1))


def test_both_phases_are_timed_and_a_garment_costs_memory(sd):
    row = bench.garment_row(sd, small_controlnet(sd), steps=2, rounds=1)
    assert complete(row)
    assert row.our_peak > row.their_peak


def test_training_is_timed_and_the_locked_model_does_not_change(sd):
    before = {name: value.clone() for name, value in sd.unet.state_dict().items()}
    assert complete(bench.training_row(sd, batch=2, rounds=1))
    row = bench.overhead_row(sd, batch=2, rounds=1)
    assert complete(row)
    assert row.our_peak > sum(value.nbytes for value in before.values())
    assert all(torch.equal(value, before[name]) for name, value in sd.unet.state_dict().items())


def test_the_example_encodes_picture_and_text_in_every_step_and_ours_in_none(sd, monkeypatch):
    encoded, sides = Counter(), []
    mirror_vae, encode_text = bench.mirror_vae, sd.encode_text

    def counted(vae):
        theirs = mirror_vae(vae)
        encode = theirs.encode
        monkeypatch.setattr(theirs, "encode", lambda *a: encoded.update(["picture"]) or encode(*a))
        return theirs

    monkeypatch.setattr(bench, "mirror_vae", counted)
    monkeypatch.setattr(bench, "compare", lambda what, mine, example, *_: sides.extend([mine, example]))
    bench.training_row(sd, batch=1, rounds=1)
    monkeypatch.setattr(sd, "encode_text", lambda texts: encoded.update(["text"]) or encode_text(texts))
    monkeypatch.setattr(sd.vae, "encode", lambda x: encoded.update(["picture"]))
    sides[0]()
    assert not encoded
    for _ in range(2):
        sides[1]()
    assert encoded == {"picture": 2, "text": 2}


@pytest.mark.parametrize("broken", ["UNet2DConditionModel", "ControlNetModel"])
def test_the_sides_of_a_training_step_predict_the_same_or_are_not_compared(sd, monkeypatch, broken):
    mirror = bench.mirror

    def other(model, kind, config):
        theirs = mirror(model, kind, config)
        if kind == broken:
            theirs.conv_in.bias.data = theirs.conv_in.bias.data + 10  # a tensor of its own: they share theirs with ours
        return theirs

    monkeypatch.setattr(bench, "mirror", other)
    with pytest.raises(Error, match="predict different noise"):
        bench.training_row(deepcopy(sd), batch=1, rounds=1)


@pytest.mark.parametrize(("options", "words"), [("--rounds 0", "1 or more"), ("--device gpu", "not on this machine")])
def test_a_bench_that_cannot_be_is_one_clear_line(capsys, options, words):
    assert main(["bench", *options.split()]) == 2
    assert words in capsys.readouterr().err


def test_the_u_net_is_timed_forward_and_with_backward(sd):
    forward, both = bench.unet_rows(sd.unet.config, "small", torch.float32, torch.device("cpu"), batch=1, rounds=1)
    assert complete(forward)
    assert complete(both)
    assert both.our_peak > forward.our_peak


def test_the_time_goes_into_kinds_of_operations(sd):
    row, _ = bench.unet_rows(sd.unet.config, "small", torch.float32, torch.device("cpu"), batch=1, rounds=1)
    for spent in row.parts:
        assert list(spent) == [*KINDS, REST]
        assert min(spent[kind] for kind in ("convolutions", "attention", "matrix products", "normalisation")) > 0
        assert spent["optimizer"] == 0
    assert all(line.count("|") == PROFILE.splitlines()[0].count("|") for line in row.profile.splitlines())


def test_an_operation_counts_once_and_the_unknown_as_the_rest():
    names = [
        "aten::mkldnn_convolution",
        "aten::matmul",
        "aten::native_group_norm",
        "aten::add",
        "aten::_fused_adamw_",
        "x",
    ]
    spent = by_kind((name, 1e6) for name in names)
    assert spent == dict.fromkeys(KINDS, 1.0) | {"attention": 0, "copies": 0, REST: 1}


def test_only_the_chosen_rows_are_measured_and_the_command_line_knows_all(monkeypatch):
    monkeypatch.setattr(bench, "random_stable_diffusion", lambda size: small_stable_diffusion())
    (row,) = bench.rows("tiny", 1, torch.device("cpu"), [torch.float32], ["overhead"])
    assert row.what.startswith("ControlNet training over fine-tuning")
    assert parser().parse_args(["bench"]).rows == list(bench.ROWS)


def test_only_rows_that_miss_a_goal_are_explained(monkeypatch):
    parts = {"convolutions": 1.5}, {"convolutions": 1.25}
    good, bad = (Row(name, ours, 1.0, 0.95, 1, 1, parts=parts) for name, ours in (("good", 0.9), ("bad", 1.1)))
    monkeypatch.setattr(bench, "rows", lambda *_: iter([good, bad]))
    printed = "\n".join(bench.bench())
    assert "| bad, first | 1500 |" in printed
    assert "| bad, second | 1250 |" in printed
    assert "good, first" not in printed


def test_of_several_looks_the_one_with_the_least_time_counts():
    looks = [(7, {"attention": 2.0, REST: 1.0}), (8, {"attention": 1.0, REST: 1.5}), (9, {"attention": 4.0, REST: 0.0})]
    assert shortest(looks) == looks[1]
