"""Charts as SVG text, drawn without any library: they go into a page as they are.

Three kinds: lines over time or along a distribution, and points with the Pareto front. Colours are
those of Okabe and Ito ("Color Universal Design", 2008), which people with any colour vision tell
apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#8c6d31",
)  # fmt: skip
NAMESPACE: Final = 'xmlns="http://www.w3.org/2000/svg"'
_WIDTH, _HEIGHT = 760, 320
_NOTHING = 1e-12  # what is less is drawn as nothing
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 34, 46

Point = tuple[float, float]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """A named line or group of points. marked: drawn stronger; dashed: a line of comparison."""

    name: str
    points: Sequence[Point]
    marked: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """A stretch of the horizontal axis with a name, such as a fault."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Axis:
    """label: with the unit; is_log: equal factors are equally long."""

    label: str
    is_log: bool = False


def lines(
    title: str, x: Axis, y: Axis, series: Sequence[Series], bands: Sequence[Band] = ()
) -> str:
    """Return a chart of lines."""
    frame = _Frame(title, x, y, series, bands)
    parts = [frame.bands(bands)]
    for index, one in enumerate(series):
        points = [p for p in one.points if frame.shows(p)]
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        dash = ' stroke-dasharray="6 4"' if one.dashed else ""
        parts.append(
            f'<polyline fill="none" stroke="{_colour(index)}" stroke-width="'
            f'{2.4 if one.marked else 1.5}"{dash} points="{path}">'
            f"<title>{escape(one.name)}</title></polyline>"
        )
    return frame.svg("".join(parts))


def scatter(
    title: str, x: Axis, y: Axis, series: Sequence[Series], front: Sequence[Point] = ()
) -> str:
    """Return a chart of points, each series with its name beside it, and the front as a line."""
    frame = _Frame(title, x, y, series, ())
    parts = []
    if len(front) > 1:
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in front)
        parts.append(f'<polyline fill="none" stroke="#999" stroke-width="1" points="{path}"/>')
    for index, one in enumerate(series):
        radius = 6 if one.marked else 4.5
        for a, b in one.points:
            if not frame.shows((a, b)):
                continue
            parts.append(
                f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="{radius}"'
                f' fill="{_colour(index)}" stroke="#fff">'
                f"<title>{escape(one.name)}: {a:.4g}, {b:.4g}</title></circle>"
            )
    return frame.svg("".join(parts))


def standalone(svg: str) -> str:
    """Return a chart as a file of its own."""
    return svg.replace("<svg ", f"<svg {NAMESPACE} ", 1) + "\n"


class _Frame:
    """Axes, grid, title and legend around what is drawn."""

    def __init__(
        self, title: str, x: Axis, y: Axis, series: Sequence[Series], bands: Sequence[Band]
    ) -> None:
        self._title, self._axes = title, (x, y)
        self._series = series
        points = [point for one in series for point in one.points if all(map(math.isfinite, point))]
        xs = [a for a, _ in points if a > _NOTHING or not x.is_log]
        ys = [b for _, b in points if b > _NOTHING or not y.is_log]
        xs += [at for band in bands for at in (band.begin, band.end) if not x.is_log]
        self._low = (_least(xs, x), _least(ys, y))
        self._high = (_most(xs, self._low[0], x), _most(ys, self._low[1], y))
        self.x = self._scale(0, _LEFT, _WIDTH - _RIGHT)
        self.y = self._scale(1, _HEIGHT - _BOTTOM, _TOP)

    def shows(self, point: Point) -> bool:
        """Whether a point can be drawn: it is finite, and above 0 on a logarithmic axis."""
        return all(
            math.isfinite(value) and (value > _NOTHING or not axis.is_log)
            for value, axis in zip(point, self._axes, strict=True)
        )

    def bands(self, bands: Sequence[Band]) -> str:
        return "".join(
            f'<rect x="{self.x(band.begin):.1f}" y="{_TOP}" '
            f'width="{max(1.0, self.x(band.end) - self.x(band.begin)):.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="#f3d9b0" opacity="0.55">'
            f"<title>{escape(band.name)}</title></rect>"
            for band in bands
        )

    def svg(self, inside: str) -> str:
        height = _HEIGHT + 18 * -(-len(self._series) // 4)
        return (
            f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="{escape(self._title, quote=True)}" font-family="sans-serif" '
            f'font-size="11"><rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
            f'<text x="{_LEFT}" y="18" font-size="13" font-weight="bold" fill="#222">'
            f"{escape(self._title)}</text>{self._grid()}{inside}{self._legend()}</svg>"
        )

    def _scale(self, which: int, begin: float, end: float) -> Scale:
        low, high = self._low[which], self._high[which]
        if self._axes[which].is_log:
            low, high = math.log(low), math.log(high)
            return lambda value: begin + (math.log(value) - low) / (high - low) * (end - begin)
        return lambda value: begin + (value - low) / (high - low) * (end - begin)

    def _grid(self) -> str:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = []
        for tick in _ticks(self._low[0], self._high[0], self._axes[0]):
            at = self.x(tick)
            parts.append(
                f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}" stroke="#e6e6e6"/>'
                f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle" fill="#444">'
                f"{tick:g}</text>"
            )
        for tick in _ticks(self._low[1], self._high[1], self._axes[1]):
            at = self.y(tick)
            parts.append(
                f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#e6e6e6"/>'
                f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#444">'
                f"{tick:g}</text>"
            )
        x, y = (escape(axis.label) for axis in self._axes)
        middle = (_TOP + bottom) / 2
        parts.append(
            f'<text x="{(_LEFT + right) / 2}" y="{bottom + 33}" text-anchor="middle" fill="#222">'
            f'{x}</text><text transform="rotate(-90 14 {middle})" x="14" y="{middle}" '
            f'text-anchor="middle" fill="#222">{y}</text>'
        )
        return "".join(parts)

    def _legend(self) -> str:
        parts = []
        for index, one in enumerate(self._series):
            x, y = _LEFT + 172 * (index % 4), _HEIGHT + 6 + 18 * (index // 4)
            parts.append(
                f'<rect x="{x}" y="{y - 8}" width="14" height="8" fill="{_colour(index)}"/>'
                f'<text x="{x + 19}" y="{y}" fill="#222">{escape(one.name)}</text>'
            )
        return "".join(parts)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _least(values: Sequence[float], axis: Axis) -> float:
    if not values:
        return 1.0 if axis.is_log else 0.0
    return min(values) / 1.15 if axis.is_log else min(0.0, *values)


def _most(values: Sequence[float], low: float, axis: Axis) -> float:
    most = max(values, default=low)
    if axis.is_log:
        return max(most, low) * 1.15  # with the margin below, never the same as the least
    return most + 0.05 * (most - low) if most - low > _NOTHING else low + 1.0


def _ticks(low: float, high: float, axis: Axis) -> list[float]:
    if axis.is_log:
        found = [
            step * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in (1, 2, 5)
        ]
        inside = [value for value in found if low <= value <= high]
        tens = [value for value in inside if math.log10(value).is_integer()]
        return tens if len(inside) > 9 and len(tens) > 2 else inside
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]
