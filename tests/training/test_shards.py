"""Streaming data: every sample once an epoch, shared out among processes, and a run that resumes exactly."""

import json
import shutil
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest
import torch

from minicc.errors import Error
from minicc.models.tokenizer import tokenize
from minicc.small import small_controlnet, small_stable_diffusion
from minicc.training.loop import train
from minicc.training.shards import Shards, write_shards
from minicc.training.stages import Phase1Stage
from tests.training.runs import assert_same_run, losses
from tests.training.toy import Rows, ToyStage, toy_config

N, SIZE = 37, 5  # rows, and how many a shard has: eight shards, the last of two


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rows = ({"x": Rows()[i, i]["x"]} for i in range(N))
    return write_shards(rows, tmp_path_factory.mktemp("data") / "shards", size=SIZE)


def names(shards: Shards, start: int, number: int) -> list[str]:
    return [sample["name"] for sample in islice(shards.samples(start), number)]


def test_what_was_written_is_read(folder):
    sample = next(iter(Shards(folder).samples(0)))
    assert torch.equal(sample["x"], Rows()[(i := int(sample["name"])), i]["x"])


def test_every_epoch_has_every_sample_once_in_another_order(folder):
    seen = names(Shards(folder), 0, 2 * N)
    assert sorted(seen[:N]) == sorted(seen[N:]) == [f"{i:09d}" for i in range(N)]
    assert seen[:N] != seen[N:]
    assert names(Shards(folder), 0, 2 * N) == seen != names(Shards(folder, seed=1), 0, 2 * N)


@pytest.mark.parametrize("start", [1, 5, 18, 36, 37, 55, 100])
def test_a_stream_goes_on_at_any_position_and_opens_no_shard_before_it(folder, start, monkeypatch):
    whole = names(Shards(folder), 0, start + 3)
    opened, read = [], Shards.read
    monkeypatch.setattr(Shards, "read", lambda self, name: opened.append(name) or read(self, name))
    assert names(Shards(folder), start, 3) == whole[start:]
    assert len(opened) <= 3


def test_two_processes_share_the_samples_of_an_epoch(folder):
    seen: Counter[str] = Counter()
    for rank in range(2):
        part = Shards(folder).starting(0, 1, rank, 2)
        own = [n for i, n in enumerate(sorted(part.counts)) if i in order(part)[rank::2]]
        seen.update(names(part, 0, sum(part.counts[name] for name in own)))
    assert seen == Counter(f"{i:09d}" for i in range(N))


def order(shards: Shards) -> list[int]:
    from minicc.training.draws import rng

    return rng(shards.seed, 0, 4).permutation(len(shards.counts)).tolist()


def test_a_streamed_run_in_two_parts_ends_as_a_run_in_one(folder, tmp_path):
    train(ToyStage(), Shards(folder), toy_config(tmp_path / "one"))
    config = toy_config(tmp_path / "two")
    with pytest.raises(KeyboardInterrupt):
        train(ToyStage(), Shards(folder, prepare=stop_at(4 * 17)), config)
    train(ToyStage(), Shards(folder), config)
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_phase_1_learns_from_shards_of_token_ids_as_from_contexts(tmp_path):
    """What a run of millions reads: latents, ids, pictures; the text encoder runs in the step."""
    sd, generator = small_stable_diffusion(), torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    rows = [
        {"latents": torch.randn(4, 4, 4, generator=generator).half(), "ids": ids.to(torch.uint16), "mask": mask,
         "image": torch.rand(3, 32, 32, generator=generator)}
        for ids in tokenize(sd.tokenizer, ["a red dress", "blue jeans", "a hat", "shoes"])
    ]  # fmt: skip
    contexts = sd.encode_text(["a red dress", "blue jeans", "a hat", "shoes"])
    told = [row | {"context": context} for row, context in zip(rows, contexts, strict=True)]
    for name, samples in (("ids", rows), ("contexts", told)):
        shards = Shards(write_shards(samples, tmp_path / f"{name}-shards", size=2))
        stage = Phase1Stage(sd, small_controlnet(sd), drop=0.3)
        train(stage, shards, toy_config(tmp_path / name, steps=3, batch=2, lr=1e-4))
    assert losses(tmp_path / "ids") == pytest.approx(losses(tmp_path / "contexts"), rel=1e-5)
    assert len(set(losses(tmp_path / "ids"))) == 3


def stop_at(position: int):
    def prepare(sample: dict, here: int) -> dict:
        if here >= position:
            raise KeyboardInterrupt
        return sample

    return prepare


def test_what_is_to_be_fresh_depends_on_the_position(folder):
    fresh = Shards(folder, prepare=lambda sample, position: sample | {"x": torch.tensor(position)})
    assert [int(s["x"]) for s in islice(fresh.starting(0, 1, 1, 2).samples(3), 3)] == [7, 9, 11]


def test_a_batch_is_stacked_and_has_its_names(folder):
    batch = next(iter(Shards(folder).starting(2, 4)))
    assert batch["x"].shape == (4, 8)
    assert batch["name"] == names(Shards(folder), 8, 4)


@pytest.mark.skipif(shutil.which("curl") is None, reason="WebDataset reads addresses with curl")
def test_shards_can_be_read_from_an_address(folder):
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = names(Shards(f"http://127.0.0.1:{server.server_port}"), 0, N)
        server.shutdown()
    assert found == names(Shards(folder), 0, N)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "source", ["nowhere", "pipe:touch marker", "pipe:touch marker; #https://x", "https://x/$(touch marker)"]
)
def test_what_is_no_folder_of_shards_is_refused_and_no_command_is_run(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match="expected a folder of shards or an https address"):
        Shards(source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", ["{}", "[]", '{"../x.tar": 3}', '{"/x.tar": 3}', '{"x.tar": "3"}', "no"])
def test_a_list_of_shards_that_lies_is_refused(tmp_path, index):
    (tmp_path / "shards.json").write_text(index)
    with pytest.raises(Error, match=r"shards\.json is missing or damaged"):
        Shards(tmp_path)


def test_a_shard_cut_short_or_with_samples_missing_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "000003.tar").write_bytes((folder / "000003.tar").read_bytes()[:700])
    with pytest.raises(Error, match=r"000003\.tar (could not be read|has \d samples)"):
        names(Shards(copy), 0, N)
    counts = json.loads((folder / "shards.json").read_text())
    (copy / "shards.json").write_text(json.dumps(counts | {"000003.tar": 6}))
    shutil.copy(folder / "000003.tar", copy)
    with pytest.raises(Error, match=r"000003\.tar has 5 samples, shards\.json says 6"):
        names(Shards(copy), 0, N)


def test_more_processes_than_shards_is_an_error(folder):
    with pytest.raises(Error, match="9 processes share 8 shards"):
        Shards(folder).starting(0, 1, 0, 9)
