"""Files that are whole or not there: written beside their place, then renamed over it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a draft, to be written within the block; at its end the draft takes the place of `path`.

    After an error `path` is what it was, and the draft is gone. Its name has the process's number: several may write
    the same file. Missing folders are made.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink()
