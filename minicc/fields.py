"""Config values from a file, checked against a dataclass's fields: a wrong one is named, not stumbled over later."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from minicc.errors import Error

LARGEST = 2**20  # of any whole number in a config: none that makes sense is beyond


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


CHECKS: dict[Any, tuple[Callable[[object], bool], str]] = {
    int: (whole, f"a whole number, 0 to {LARGEST}"),
    float: (number, "a finite number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "a word"),
    tuple[int, ...]: (
        lambda value: isinstance(value, (list, tuple)) and 0 < len(value) <= 16 and all(map(whole, value)),
        "a list of 1 to 16 whole numbers",
    ),
}


def checked(cls: type, config: object, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values in a config for cls's fields, of the right types; what is absent or null is left out.

    names: {name in the config: field}, where they differ. Raises Error that names the first wrong value.
    """
    if not isinstance(config, Mapping):
        raise Error(f"a config must be a dictionary of names and values, got {type(config).__name__}")
    theirs = {ours: theirs for theirs, ours in (names or {}).items()}
    hints, values = get_type_hints(cls), {}
    for field in fields(cls):
        key = theirs.get(field.name, field.name)
        value = config.get(key)
        if value is not None:
            values[field.name] = convert(key, value, hints[field.name])
    return values


def convert(key: str, value: Any, hint: Any) -> Any:
    """The value as its field holds it, or Error."""
    kind = next(k for k in CHECKS if k == hint or hint == k | None)
    test, expected = CHECKS[kind]
    if not test(value):
        raise Error(f"config: {key}={value!r} is not {expected}")
    return tuple(value) if kind == tuple[int, ...] else value
