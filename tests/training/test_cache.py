"""What is kept on disk between runs: made once, made anew when it is of something else, no drafts left behind."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from minicc.training.cache import FORGOTTEN, digest_of, kept


def made(number: int):
    return lambda: {"x": torch.full((3,), number)}


def test_it_is_made_once_and_anew_for_another_digest(tmp_path, capsys):
    path = tmp_path / "deep" / "cache.safetensors"
    assert kept(path, "a", made(1))["x"].tolist() == [1, 1, 1]
    assert kept(path, "a", made(2))["x"].tolist() == [1, 1, 1]
    assert capsys.readouterr().out == ""
    assert kept(path, "b", made(2))["x"].tolist() == [2, 2, 2]
    assert "stale" in capsys.readouterr().out


def test_a_damaged_one_is_made_anew(tmp_path, capsys):
    path = tmp_path / "cache.safetensors"
    kept(path, "a", made(1))
    path.write_bytes(path.read_bytes()[:-4])
    assert kept(path, "a", made(2))["x"].tolist() == [2, 2, 2]
    assert "damaged" in capsys.readouterr().out


def test_drafts_of_killed_processes_go_and_those_that_are_being_written_stay(tmp_path):
    names = ("dolls [1].safetensors.123.tmp", "dolls [1].safetensors.9.tmp")
    others = ("notes.tmp", ".tmpAbC123", "dolls 1.safetensors.2.tmp", "other.safetensors")
    mine = (*others, "dolls [1].safetensors.5.tmp")  # the last: a folder
    (tmp_path / mine[-1]).mkdir()
    for name in (*names, *mine[:-1], "dolls [1].safetensors.77.tmp"):
        (tmp_path / name).write_bytes(b"half")
    old = time.time() - FORGOTTEN - 60
    for name in (*names, *mine):
        os.utime(tmp_path / name, (old, old))
    kept(tmp_path / "dolls [1].safetensors", "a", made(1))
    assert {p.name for p in tmp_path.iterdir()} == {"dolls [1].safetensors", "dolls [1].safetensors.77.tmp", *mine}


BEGUN = """
import sys, time
from pathlib import Path
from minicc.training.dolls_cache import drawn

def slow(job):
    Path(sys.argv[1], job[0]).write_text("begun")
    time.sleep(60)

if __name__ == "__main__":
    drawn(slow, [("a", 0, 64), ("b", 1, 64)], chunk=1)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes where Linux lists them")
def test_who_draws_ends_with_a_killed_process(tmp_path):
    (tmp_path / "begun.py").write_text(BEGUN)
    begun = subprocess.Popen([sys.executable, tmp_path / "begun.py", tmp_path], stderr=subprocess.DEVNULL)
    try:
        assert waited_for(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists(), 60)
        workers = {process for process, parent in running().items() if parent == begun.pid}
        assert len(workers) >= 2
    finally:
        begun.kill()
        begun.wait()
    assert waited_for(lambda: not workers & running().keys(), 10)


def running() -> dict[int, int]:
    """Process → its parent, of all that are no zombies."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(stat.parent.name)] = int(parent)
    return found


def waited_for(happened, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not happened():
        time.sleep(0.1)
    return happened()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's count of a process's pages")
def test_a_cache_is_mapped_and_not_read_into_memory(tmp_path):
    def private() -> int:
        rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(1024 * int(row.split()[1]) for row in rows if row.startswith("Anonymous:"))

    kept(tmp_path / "x", "d", lambda: {"a": torch.ones(2**24)})  # 64 MB, written
    before = private()
    again = kept(tmp_path / "x", "d", dict)["a"]
    assert again[::4096].sum() == 2**12
    assert private() - before < 2**24


def test_a_models_digest_is_of_its_numbers_and_not_of_how_they_are_laid_out():
    kernel = torch.randn(4, 16, 1, 1)
    assert digest_of(kernel.to(memory_format=torch.channels_last)) == digest_of(kernel) != digest_of(kernel + 1)
