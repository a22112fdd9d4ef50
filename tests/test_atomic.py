"""A file that is replaced is the old one or the new one, never half of either."""

import pytest

from minicc.atomic import replacing
from minicc.models.vocabulary import known_words, save_words


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "words.txt"
    for text in ("old", "new"):
        with replacing(path) as draft:
            draft.write_text(text)
            assert path.exists() == (text == "new")
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


def test_what_breaks_off_leaves_the_old_file_and_no_draft(tmp_path):
    save_words(["a red dress"], tmp_path)

    def broken():
        yield "a blue hat"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        save_words(broken(), tmp_path)
    assert known_words(tmp_path) == ["a", "dress", "red"]
    assert [file.name for file in tmp_path.iterdir()] == ["words.txt"]
