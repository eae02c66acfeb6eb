"""How a number reads: with as many digits as its interval or its SD carries, which is two of that."""

from __future__ import annotations

import math

MOST_PLACES = 8  # a width below that is shown in powers of ten


def places(width: float) -> int:
    """The decimal places with which `width` shows two digits that count; 0 for a width of ten or more.

    >>> places(0.0057), places(0.0996), places(1.2), places(340)
    (4, 2, 1, 0)
    """
    return max(0, 1 - math.floor(math.log10(float(f"{width:.1e}"))))  # rounded first: 0.0996 is 0.10


def two_digits(number: float) -> str:
    """An SD, a p value or a size, with two digits that count.

    >>> two_digits(0.003209), two_digits(0.0104), two_digits(268.4), two_digits(0), two_digits(3.21e-12)
    ('0.0032', '0.010', '270', '0', '3.2e-12')
    """
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    if (count := places(abs(number))) > MOST_PLACES:
        return f"{number:.1e}"
    return f"{float(f'{number:.1e}'):.{count}f}"


def with_ends(value: float, low: float, high: float, *, sign: str = "", neutral: float = 0) -> tuple[str, str, str]:
    """A value and the ends of its interval, to the place at which half the interval's width has two digits.

    An end beside `neutral` gets the places that keep it from reading so, for on which side it lies is the verdict.
    `sign` is "+" where a number above 0 gets its sign.

    >>> with_ends(0.0094, 0.003669, 0.01513, sign="+")
    ('+0.0094', '+0.0037', '+0.0151')
    >>> with_ends(0.025, 0.0001586, 0.0498)
    ('0.0250', '0.0002', '0.0498')
    >>> with_ends(1.35, 1.0047, 1.5, neutral=1)
    ('1.350', '1.005', '1.500')
    >>> with_ends(0.5, 0.5, 0.5)
    ('0.5', '0.5', '0.5')
    """
    width = (high - low) / 2
    for end in (low, high):
        if end != neutral and width > 0 and float(to_the_place(end, width)) == neutral:
            width = 10 * abs(end - neutral)  # ends at the first digit of how far it is off
    value_shown, *ends = (to_the_place(number, width, sign) for number in (value, low, high))
    return value_shown, ends[0], ends[1]


def to_the_place(number: float, width: float, sign: str = "") -> str:
    """A number to the last place of `width`, half an interval or a standard error, which has two digits.

    >>> to_the_place(0.92, 0.0014), to_the_place(1234.6, 340), to_the_place(0.123456789, 0)
    ('0.9200', '1235', '0.123457')
    """
    if not (width > 0 and math.isfinite(width)) or places(width) > MOST_PLACES:
        return f"{number:{sign}.6g}"
    shown = f"{number:.{places(width)}f}"
    return shown.removeprefix("-") if float(shown) == 0 else f"{number:{sign}.{places(width)}f}"
