"""What all tests of training share."""

from collections.abc import Iterator

import pytest

from minicc.training import commands


@pytest.fixture(scope="module", autouse=True)
def two_on_a_sheet() -> Iterator[None]:
    """Validation sheets of two dolls and not of twelve: drawing them would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "SHOWN", 2)
        yield
