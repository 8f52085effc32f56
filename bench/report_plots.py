"""The report's pictures: SVG, written by hand, so that nothing has to be installed.

Each picture brings its own background, with a second set of colours for readers whose system is dark, so it can
be read on any page. Data are plain numbers; a plot's axes are given by scale, label and unit.
"""

import html
import math

WIDTH, HEIGHT = 640, 360
PLOT_TOP, PLOT_BOTTOM, PLOT_LEFT = 44, 306, 62
TEXT_PX = 12
LABEL_GAP_PX = 15  # between two names beside their lines
CHARACTER_PX = 7.3  # of a bold label, about: a name's room is reckoned from it

# Told apart without colour sight as well (after Okabe and Ito), light and dark page.
COLOURS = [
    ("#0067a5", "#6cb6ff"),
    ("#c2410c", "#ff9d5c"),
    ("#00795a", "#4fd1a5"),
    ("#8f3f8f", "#e29be0"),
    ("#6b5b00", "#e3c94a"),
    ("#555d68", "#b4bcc8"),
    ("#b0123b", "#ff8fa3"),
]


def style():
    """Classes for the parts; c0, c1, … for the series."""

    def rules(panel, ink, faint, shade):
        lines = [f".panel{{fill:{panel}}}text{{fill:{ink}}}.grid{{stroke:{faint}}}.axis{{stroke:{ink}}}"]
        for number, colours in enumerate(COLOURS):
            colour = colours[shade]
            lines.append(f".c{number}{{fill:{colour}}}.l{number}{{stroke:{colour};fill:none}}")
        return "".join(lines)

    light = rules("#ffffff", "#1f2328", "#d5d9de", 0)
    dark = rules("#161b22", "#e6edf3", "#3a424c", 1)
    font = f"text{{font:{TEXT_PX}px sans-serif}}.title{{font-weight:bold;font-size:14px}}"
    return f"<style>{font}{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def short(value):
    """12 -> 12, 0.5 -> 0.5, 1500 -> 1.5 k, 2000000 -> 2 M."""
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


class Scale:
    """Maps a range of values to a range of pixels, linearly from 0 or by logarithm, and chooses where ticks stand."""

    def __init__(self, values, pixels, log, margin=0.0):
        """`margin`: the share of a logarithmic range that stays free at either end."""
        self.log = log
        self.pixels = pixels
        low, high = min(values), max(values)
        if log:
            if low == high:
                low, high = low / 2, high * 2
            room = (high / low) ** margin
            self.low, self.high = low / room, high * room
            self.ticks = self.log_ticks(self.low, self.high)
        else:
            self.ticks = self.linear_ticks(high)
            self.low, self.high = 0, self.ticks[-1]

    @staticmethod
    def log_ticks(low, high):
        """1, 2, 5 of each decade while that is few, else the decades alone."""
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 1000 else (1,)
        ticks = (step * 10.0**decade for decade in decades for step in steps)
        return [tick for tick in ticks if low * 0.9999 <= tick <= high * 1.0001]

    @staticmethod
    def linear_ticks(high):
        step = 10.0 ** math.floor(math.log10(high))
        step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if high / (step * part) <= 6)
        return [step * number for number in range(math.ceil(high / step - 1e-9) + 1)]

    def at(self, value):
        first, last = self.pixels
        if self.log:
            low, high, value = (math.log10(number) for number in (self.low, self.high, value))
        else:
            low, high = self.low, self.high
        return first + (value - low) / (high - low) * (last - first)


def text(x, y, words, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(words)}</text>'


def line(x1, y1, x2, y2, name):
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def document(title, parts):
    words = html.escape(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{words}"><title>{words}</title>'
    )
    panel = f'<rect class="panel" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    body = [style(), panel, text(16, 24, title, extra=' class="title"'), *parts]
    return "\n".join([head, *body, "</svg>"]) + "\n"


def spread_labels(wanted):
    """Moves labels apart that would stand on one another; (y, …) in any order -> the same with a free y."""
    placed = []
    for y, *rest in sorted(wanted):
        y = max(y, placed[-1][0] + LABEL_GAP_PX if placed else PLOT_TOP)
        placed.append((y, *rest))
    overflow = placed[-1][0] - PLOT_BOTTOM if placed else 0
    if overflow > 0:
        # Push back upwards from the bottom edge.
        limit = PLOT_BOTTOM
        for index in range(len(placed) - 1, -1, -1):
            y, *rest = placed[index]
            placed[index] = (min(y, limit), *rest)
            limit = placed[index][0] - LABEL_GAP_PX
    return placed


def lines(title, x_label, y_label, series, x_log=True, y_log=True, x_names=None):
    """One line for each of `series`, name -> [(x, y), …], named at its right end.

    `x_names` gives the x values that get a tick, and what stands there; without it the scale chooses.
    """
    series = {name: sorted(points) for name, points in series.items() if points}
    if not series:
        return None
    right = WIDTH - 14 - CHARACTER_PX * max(len(name) for name in series)
    across = Scale([x for points in series.values() for x, _ in points], (PLOT_LEFT + 10, right - 10), x_log)
    up = Scale([y for points in series.values() for _, y in points], (PLOT_BOTTOM, PLOT_TOP), y_log, margin=0.06)
    if x_names:
        across.low, across.high = min(x_names), max(x_names)
    parts = []
    for tick in up.ticks:
        parts.append(line(PLOT_LEFT, up.at(tick), right, up.at(tick), "grid"))
        parts.append(text(PLOT_LEFT - 6, up.at(tick) + 4, short(tick), "end"))
    ticks = x_names or {x: short(x) for points in series.values() for x, _ in points}
    for x, words in ticks.items():
        parts.append(line(across.at(x), PLOT_BOTTOM, across.at(x), PLOT_BOTTOM + 4, "axis"))
        parts.append(text(across.at(x), PLOT_BOTTOM + 18, words, "middle"))
    parts.append(line(PLOT_LEFT, PLOT_BOTTOM, right, PLOT_BOTTOM, "axis"))
    parts.append(text((PLOT_LEFT + right) / 2, PLOT_BOTTOM + 40, x_label, "middle"))
    middle = (PLOT_TOP + PLOT_BOTTOM) / 2
    turned = f' transform="rotate(-90 16 {middle:.1f})"'
    parts.append(text(16, middle, y_label, "middle", turned))
    names = []
    for number, (name, points) in enumerate(series.items()):
        colour = number % len(COLOURS)
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="l{colour}" stroke-width="2" points="{path}"/>')
        for x, y in points:
            parts.append(f'<circle class="c{colour}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3"/>')
        names.append((up.at(points[-1][1]), across.at(points[-1][0]), name, colour))
    for y, _, name, colour in spread_labels(names):
        parts.append(text(right + 6, y + 4, name, extra=f' class="c{colour}" style="font-weight:bold"'))
    return document(title, parts)


def bars(title, x_label, rows, groups):
    """Horizontal bars on a logarithmic scale: `rows` is [(name, [value of each group or None])].

    A bar on such a scale has no natural foot: it begins at the decade below the smallest value, and the figure
    stands at its end.
    """
    rows = [(name, values) for name, values in rows if any(values)]
    if not rows:
        return None
    left = 16 + CHARACTER_PX * max(len(name) for name, _ in rows)
    right = WIDTH - 64
    known = [value for _, values in rows for value in values if value]
    across = Scale([10 ** math.floor(math.log10(min(known))), max(known)], (left, right), True)
    parts = []
    for tick in across.ticks:
        parts.append(line(across.at(tick), PLOT_TOP + 8, across.at(tick), PLOT_BOTTOM, "grid"))
        parts.append(text(across.at(tick), PLOT_BOTTOM + 16, short(tick), "middle"))
    parts.append(text((left + right) / 2, PLOT_BOTTOM + 40, x_label, "middle"))
    x = left
    for number, group in enumerate(groups):
        parts.append(f'<rect class="c{number}" x="{x:.1f}" y="{PLOT_TOP - 10}" width="10" height="10"/>')
        parts.append(text(x + 15, PLOT_TOP, group))
        x += 30 + CHARACTER_PX * len(group)
    step = (PLOT_BOTTOM - PLOT_TOP - 12) / len(rows)
    thick = min(11.0, (step - 4) / len(groups))
    for index, (name, values) in enumerate(rows):
        given = [(group, value) for group, value in enumerate(values) if value]
        middle = PLOT_TOP + 12 + step * (index + 0.5)
        parts.append(text(left - 8, middle + 4, name, "end"))
        top = middle - thick * len(given) / 2
        for place, (group, value) in enumerate(given):
            y = top + place * thick
            width = max(1.0, across.at(value) - left)
            parts.append(
                f'<rect class="c{group}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{thick - 1:.1f}"/>'
            )
            small = f' style="font-size:{min(TEXT_PX - 1, thick + 0.5):.1f}px"'
            parts.append(text(left + width + 4, y + thick - 2, short(value), extra=small))
    parts.append(line(left, PLOT_TOP + 8, left, PLOT_BOTTOM, "axis"))
    return document(title, parts)
