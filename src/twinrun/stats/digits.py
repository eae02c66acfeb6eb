"""How a number reads: with as many digits as its interval or its SD carries, which is two of that."""

from __future__ import annotations

import math
from collections.abc import Sequence

P_BOUNDS = (0.05, 1)  # a p value is read beside these
ROUNDING = 1e-9  # of a width: a number below that is 0 but for rounding
MOST_PLACES = 8  # a width below that is shown in powers of ten


def places(width: float) -> int:
    """The decimal places with which `width` shows two digits that count; 0 for a width of ten or more.

    >>> places(0.0057), places(0.0996), places(1.2), places(340)
    (4, 2, 1, 0)
    """
    return max(0, 1 - math.floor(math.log10(float(f"{width:.1e}"))))  # rounded first: 0.0996 is 0.10


def two_digits(number: float) -> str:
    """An SD or a size, with two digits that count.

    >>> two_digits(0.003209), two_digits(0.0104), two_digits(268.4), two_digits(0), two_digits(3.21e-12)
    ('0.0032', '0.010', '270', '0', '3.2e-12')
    """
    return _digits(number, 2)


def p_value(p: float) -> str:
    """A p value with two digits that count, and with more where two would put it on a bound that it is not on.

    >>> p_value(0.0104), p_value(0.0496), p_value(0.050004), p_value(0.05), p_value(0.9996), p_value(1.0)
    ('0.010', '0.0496', '0.050004', '0.050', '0.9996', '1.0')
    """
    return next(
        shown
        for count in range(2, 18)
        if (shown := _digits(p, count)) and all(float(shown) != bound or math.isclose(p, bound) for bound in P_BOUNDS)
    )


def _digits(number: float, count: int) -> str:
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    rounded = f"{number:.{count - 1}e}"
    after = max(0, count - 1 - int(rounded.split("e")[1]))
    return rounded if after > MOST_PLACES else f"{float(rounded):.{after}f}"


def with_ends(
    value: float, low: float, high: float, *, sign: str = "", neutral: Sequence[float] = (0,)
) -> tuple[str, str, str]:
    """A value and the ends of its interval, to the place at which `width_of` has two digits.

    `sign` is "+" where a number above 0 gets its sign.

    >>> with_ends(0.0094, 0.003669, 0.01513, sign="+")
    ('+0.0094', '+0.0037', '+0.0151')
    >>> with_ends(0.025, 0.0001586, 0.0498)
    ('0.0250', '0.0002', '0.0498')
    >>> with_ends(1.35, 1.0047, 1.5, neutral=(1,))
    ('1.350', '1.005', '1.500')
    >>> with_ends(0.0021, -0.0008, 0.00499, sign="+", neutral=(0, -0.005, 0.005))
    ('+0.00210', '-0.00080', '+0.00499')
    >>> with_ends(0.42, 0.11, 25, neutral=(1,))
    ('0.42', '0.11', '25')
    >>> with_ends(0.5, 0.5, 0.5)
    ('0.5', '0.5', '0.5')
    """
    width = width_of(low, high, neutral)
    return to_the_place(value, width, sign), to_the_place(low, width, sign), to_the_place(high, width, sign)


def width_of(low: float, high: float, neutral: Sequence[float] = (0,)) -> float:
    """Half of an interval; less where an end so rounded would not lie on its side of a `neutral` value.

    On which side an end lies is the verdict: it ends at the first digit of how far it is off.

    >>> width_of(-1, 3), round(width_of(0.03, 3.97), 9)
    (2.0, 0.3)
    """
    width = (high - low) / 2
    for end in (low, high):
        for middle in neutral:
            off = end - middle
            if width > 0 and not math.isclose(end, middle) and off * (float(_rounded(end, width)) - middle) <= 0:
                width = min(width, 10 * abs(off))
    return width


def to_the_place(number: float, width: float, sign: str = "") -> str:
    """A number to the last place of `width`, half an interval or a standard error, which has two digits.

    One that would read 0 there has two digits of its own, unless it is what rounding leaves of a 0.

    >>> to_the_place(0.92, 0.0014), to_the_place(1234.6, 340), to_the_place(0.123456789, 0)
    ('0.9200', '1235', '0.123457')
    >>> to_the_place(0.42, 12.4), to_the_place(-0.003, 1.5), to_the_place(-1e-17, 1.5)
    ('0.42', '-0.0030', '0.0')
    """
    shown = _rounded(number, width, sign)
    if float(shown) != 0:
        return shown
    if abs(number) < ROUNDING * width or number == 0:
        return shown.lstrip("+-")
    return ("+" if sign and number > 0 else "") + two_digits(number)


def _rounded(number: float, width: float, sign: str = "") -> str:
    known = width > 0 and math.isfinite(width) and places(width) <= MOST_PLACES
    return f"{number:{sign}.{places(width)}f}" if known else f"{number:{sign}.6g}"
