"""The words that a small model has met: its captions' words lie beside its tokenizer, and others are warned about.

A tokenizer turns any letters into ids, so an unknown word is no error; but a model that never saw it in a caption
paints as if it were not there. Official models know too many words for a list: without the file, nothing is said.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from minicc.atomic import replacing

FILE = "words.txt"  # one word a line, in a tokenizer's folder
WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def words_in(sentence: str) -> list[str]:
    """The words of a sentence in lower case, in their order, each once; "short-sleeved" is one."""
    return list(dict.fromkeys(WORD.findall(sentence.lower())))


def save_words(captions: Iterable[str], folder: Path) -> Path:
    """Write the words of all captions beside the tokenizer in this folder."""
    words = sorted({word for caption in captions for word in words_in(caption)})
    path = folder / FILE
    with replacing(path) as draft:
        draft.write_text("\n".join(words) + "\n", "utf-8")
    return path


def known_words(folder: Path | None) -> list[str]:
    """The words that the model of this tokenizer has met, sorted; empty where there is no list."""
    path = None if folder is None else folder / FILE
    return path.read_text("utf-8", errors="replace").split() if path is not None and path.is_file() else []


def unknown_words(folder: Path | None, prompt: str) -> list[str]:
    """One warning for each word of the prompt that the model never met, the last with all words that it knows."""
    known = known_words(folder)
    strange = [word for word in words_in(prompt) if known and word not in known]
    if not strange:
        return []
    doubts = [f"{word!r} is a word that this model has never met{meant(word, known)}" for word in strange]
    return [*doubts, f"the words it knows: {', '.join(known)}"]


def meant(word: str, known: list[str]) -> str:
    """What a misspelt word could have been."""
    near = get_close_matches(word, known, n=2, cutoff=0.75)
    return f"; did you mean {' or '.join(near)}?" if near else ""
