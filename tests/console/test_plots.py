"""Plots: each value is drawn, said where somebody points, and summed up for who cannot see."""

import xml.etree.ElementTree as ET

from conventions.console.plots import Frame, Track, bars, lines

SVG = "{http://www.w3.org/2000/svg}"
FRAME = Frame("Attempts", ["12:00", "12:01", "12:02"], [(1, "release <r2>")])


def read(figure: str) -> ET.Element:
    """The figure as XML, which it must be."""
    return ET.fromstring(figure.replace("<ul class=conventions-marks>", '<ul class="conventions-marks">'))


def shapes(figure: str, kind: str) -> list[dict[str, str]]:
    """The attributes of all shapes of a kind."""
    return [one.attrib for one in read(figure).iter() if one.get("class") == f"conventions-plot-{kind}"]


def test_bars_stand_on_each_other() -> None:
    """The highest fills the height; a single event is visible."""
    figure = bars(FRAME, [Track("succeeded", [0, 1000, 500]), Track("dead", [0, 0, 1])])
    heights = [float(one["height"]) for one in shapes(figure, "succeeded")]
    assert heights == [100.0, 50.0]
    (dead,) = shapes(figure, "dead")
    assert float(dead["height"]) == 1.5
    assert float(dead["y"]) == 100 - 50 - 1.5
    assert "1,000" in figure
    assert 'aria-label="Attempts: 1,500 succeeded, 1 dead"' in figure


def test_lines_have_gaps() -> None:
    """And a single minute is seen, too."""
    figure = lines(FRAME, [Track("p50", [1.0, None, 2.0])], "s")
    assert len(shapes(figure, "p50")) == 2
    assert "last p50 2 s" in figure


def test_marks_are_drawn_and_told() -> None:
    """Nothing of a name is read as markup."""
    figure = bars(FRAME, [Track("succeeded", [1, 1, 1])])
    assert "12:01 release &lt;r2&gt;" in figure
    assert len(list(read(figure).iter("line"))) == 1


def test_nothing_is_a_picture_too() -> None:
    """As before the first job, or without Redis."""
    assert "nothing" in lines(Frame("Wait", []), [Track("p50", [])], "s")
    assert read(bars(Frame("Attempts", []), [Track("succeeded", [])])) is not None
