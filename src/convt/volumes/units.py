"""Units of length, by NGFF's names, and what other formats call them; an unknown one is None."""

from __future__ import annotations

from typing import Any

__all__ = ["micrometers", "parse_unit", "symbol"]

_MICROMETERS = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
_SYMBOLS = {
    "nm": "nanometer",
    "\N{MICRO SIGN}m": "micrometer",
    "\N{GREEK SMALL LETTER MU}m": "micrometer",
    "um": "micrometer",
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}


def parse_unit(text: Any) -> str | None:
    """NGFF's name of a unit.

    Examples
    --------
    >>> parse_unit("mm"), parse_unit("micron"), parse_unit("meter"), parse_unit("pixel")
    ('millimeter', 'micrometer', 'meter', None)
    """
    name = str(text).replace("\\u00B5", "\N{MICRO SIGN}")  # as ImageJ writes it
    return name if name in _MICROMETERS else _SYMBOLS.get(name)


def symbol(unit: str) -> str:
    """OME's symbol of a unit."""
    return next(short for short, name in _SYMBOLS.items() if name == unit)


def micrometers(unit: str | None) -> float:
    """How long a unit is; an unknown one counts as a micrometer."""
    return _MICROMETERS.get(str(unit), 1.0)
