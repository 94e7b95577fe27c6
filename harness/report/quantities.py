"""Numbers as people read them: one prefix per column, digits no finer than the interval."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.statistics import Estimate

_SMALL = ((1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, ""))
_LARGE = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"))
_BINARY = tuple((1024.0**i, prefix) for i, prefix in enumerate(("", "Ki", "Mi", "Gi", "Ti")))
_PREFIXES = {
    "s": _SMALL,
    "J": _SMALL + _LARGE[1:],
    "W": _SMALL + _LARGE[1:],
    "B": _BINARY,
    "B/s": _LARGE,
    "bit/s": _LARGE,
    "FLOP": _LARGE,
    "FLOP/s": _LARGE,
    "Hz": _LARGE,
}
_SPELLINGS = {"bytes": "B", "byte": "B", "bytes/s": "B/s", "seconds": "s", "1": ""}
_PLAIN_DIGITS = 4  # significant digits of a number without an interval
_MOST_DIGITS = 6
_SHORT_DIGITS = 3  # where the number is not the point


@dataclass(frozen=True, slots=True)
class Scale:
    """How the numbers of one column are shown: divided by `factor`, in `unit`."""

    factor: float
    unit: str  # "" for a pure number
    whole: bool = False  # every number of the column is an integer

    def text(self, estimate: Estimate) -> str:
        """The value alone, with as many digits as its interval supports."""
        return _number(estimate.value / self.factor, self._decimals(estimate))

    def interval(self, estimate: Estimate) -> str:
        """`[low, high]`, or nothing where there is no interval."""
        if estimate.low is None or estimate.high is None:
            return ""
        decimals = self._decimals(estimate)
        low, high = (_number(x / self.factor, decimals) for x in (estimate.low, estimate.high))
        return f"[{low}, {high}]"

    def _decimals(self, estimate: Estimate) -> int | None:
        """Two digits of the interval's half-width; None where significant digits decide."""
        if estimate.low is None or estimate.high is None or estimate.high <= estimate.low:
            return 0 if self.whole else None
        half = (estimate.high - estimate.low) / 2 / self.factor
        finest = _MOST_DIGITS - 1 - _magnitude(estimate.value / self.factor)
        return max(0, min(1 - _magnitude(half), finest))


def scale(unit: str, values: Iterable[float]) -> Scale:
    """The prefix that brings the middle of `values` between 1 and 1000 where the unit has one."""
    unit = _SPELLINGS.get(unit, unit)
    sizes = [abs(value) for value in values if value]
    factor, prefix = (
        _prefix(_PREFIXES[unit], median(sizes)) if unit in _PREFIXES and sizes else (1, "")
    )
    shown = [size / factor for size in sizes]
    whole = all(math.isclose(size, round(size), rel_tol=1e-9) for size in shown)
    return Scale(factor, prefix + unit, whole)


def quantity(unit: str, value: float) -> str:
    """One number with its own prefix and unit."""
    column = scale(unit, [value])
    digits = 1 if column.whole else _SHORT_DIGITS
    return f"{_number(value / column.factor, None, digits)} {column.unit}".rstrip()


def digits(value: float, n: int = _SHORT_DIGITS) -> str:
    """A number of n significant digits, no longer than it must be."""
    return _bare(_number(value, None, n))


def brief(value: float, n: int) -> str:
    """The same with a power of ten where that is shorter."""
    return min(digits(value, n), _bare(_scientific(value, n)), key=len)


def ratio_text(estimate: Estimate) -> str:
    """A ratio to the baseline, as `1.23×`."""
    return f"{_number(estimate.value, None, _SHORT_DIGITS)}×"


def ratio_interval(estimate: Estimate) -> str:
    """A ratio with its interval, as `1.23× [1.20, 1.26]`."""
    ratios = Scale(1, "")
    return f"{ratios.text(estimate)}× {ratios.interval(estimate)}".rstrip()


def percent(share: float, decimals: int = 1) -> str:
    """A share, as `12.5 %`."""
    return f"{share:.{decimals}%}".replace("%", " %")


def _prefix(steps: Sequence[tuple[float, str]], middle: float) -> tuple[float, str]:
    fitting = [step for step in steps if step[0] <= middle]
    return fitting[-1] if fitting else steps[0]


def _number(value: float, decimals: int | None, digits: int = _PLAIN_DIGITS) -> str:
    if value and not 1e-4 <= abs(value) < 1e12:
        return _scientific(value, digits)
    if decimals is None:
        decimals = max(0, digits - 1 - _magnitude(value))
    return f"{value:,.{decimals}f}".replace("-", "−")


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def _bare(text: str) -> str:
    """Without zeros at the end of a fraction."""
    return re.sub(r"\.?0+(?=e|$)", "", text) if "." in text else text


def _magnitude(value: float) -> int:
    """The power of ten of the first significant digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0
