"""Plots as SVG, drawn on the server: bars and lines by the minute, with marks. No script is needed; the style has the colors.

A picture is as wide as its page, so it has no text in it: that would be stretched. Scale and times stand around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 100  # units of a picture


@dataclass(frozen=True, slots=True)
class Track:
    """Values, one for each minute. `None`: nothing is known.

    Attributes:
        name: as people read it, and the class of its shapes.
    """

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a picture shows beside its values.

    Attributes:
        title: what it is of.
        labels: the time of each minute.
        marks: what happened, by the place of its minute from 0.
    """

    title: str
    labels: Sequence[str]
    marks: Sequence[tuple[int, str]] = ()

    @property
    def step(self) -> float:
        """The width of a minute."""
        return WIDTH / max(len(self.labels), 1)


def bars(frame: Frame, tracks: Sequence[Track]) -> str:
    """Stacked bars, the first track at the bottom. Each says its values when it is pointed at."""
    totals = [sum(one or 0 for one in column) for column in zip(*(track.values for track in tracks), strict=True)]
    most = max(totals, default=0) or 1
    shapes = []
    for place, label in enumerate(frame.labels):
        floor, said = 0.0, []
        for track in tracks:
            value = track.values[place] or 0
            said.append(f"{track.name} {value:,.0f}")
            height = max(HEIGHT * value / most, 1.5) if value else 0.0
            if value:
                shapes.append(_rect(track.name, place * frame.step, HEIGHT - floor - height, frame.step * 0.85, height))
            floor += height
        shapes.append(_hover(frame, place, f"{label}: {', '.join(said)}"))
    summary = ", ".join(f"{sum(one or 0 for one in track.values):,.0f} {track.name}" for track in tracks)
    return _figure(frame, summary, f"{most:,.0f}", shapes)


def lines(frame: Frame, tracks: Sequence[Track], unit: str) -> str:
    """Lines, with gaps where nothing is known."""
    known = [value for track in tracks for value in track.values if value is not None]
    most = max(known, default=0.0) or 1.0
    shapes = []
    for track in tracks:
        for run in _runs(track.values):
            # A single minute is a line as wide as itself.
            ends = (
                [(run[0][0] + 0.2, run[0][1]), (run[0][0] + 0.8, run[0][1])]
                if len(run) == 1
                else [(place + 0.5, value) for place, value in run]
            )
            points = " ".join(f"{place * frame.step:.1f},{HEIGHT - HEIGHT * value / most:.1f}" for place, value in ends)
            shapes.append(f'<polyline class="conventions-plot-{escape(track.name)}" points="{points}"/>')
    for place, label in enumerate(frame.labels):
        said = [f"{track.name} {value:.3g} {unit}" for track in tracks if (value := track.values[place]) is not None]
        shapes.append(_hover(frame, place, f"{label}: {', '.join(said) or 'nothing'}"))
    last = [
        f"{track.name} {found[-1]:.3g} {unit}"
        for track in tracks
        if (found := [one for one in track.values if one is not None])
    ]
    return _figure(frame, f"last {', '.join(last) or 'nothing'}", f"{most:.3g} {unit}", shapes)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The values that follow each other without a gap, with their places."""
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is not None:
            runs[-1].append((place, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _rect(name: str, x: float, y: float, width: float, height: float) -> str:
    kind = f"conventions-plot-{escape(name)}"
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _hover(frame: Frame, place: int, text: str) -> str:
    size = f'x="{place * frame.step:.1f}" y="0" width="{frame.step:.1f}" height="{HEIGHT}"'
    return f'<rect class="conventions-plot-hover" {size}><title>{escape(text)}</title></rect>'


def _figure(frame: Frame, summary: str, most: str, shapes: Sequence[str]) -> str:
    marks = []
    for place, text in frame.marks:
        x = (place + 0.5) * frame.step
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"><title>{escape(text)}</title></line>'
        marks.append(f'<g class="conventions-plot-mark">{line}</g>')
    first, last = (frame.labels[0], frame.labels[-1]) if frame.labels else ("", "")
    told = "".join(f"<li>{escape(frame.labels[place])} {escape(text)}</li>" for place, text in frame.marks)
    label = escape(f"{frame.title}: {summary}")
    return (
        f'<figure class="conventions-figure"><span class="conventions-scale">{escape(most)}</span>'
        f'<svg class="conventions-plot" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f"{''.join(shapes)}{''.join(marks)}</svg>"
        f"<figcaption><span>{escape(first)}</span><span>{escape(last)}</span></figcaption>"
        f"{f'<ul class=conventions-marks>{told}</ul>' if told else ''}</figure>"
    )
