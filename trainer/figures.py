"""Figures: the plots of a card as SVG text that can stand inside a page.

1. The same values give the same bytes: no dates, no random ids.
2. Nothing is loaded from elsewhere: text stays text in the page's own font, and there is no script.
3. Text from the data never becomes markup: it is escaped, and no part of it is read as mathematics.
4. Ids are there only where the drawing itself refers to them, and carry the figure's name, so that
   figures can share a page.

matplotlib is imported when a figure is drawn: nothing else of the trainer needs it.
"""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from schemas.evidence import MODEL, Quantile, Step
from trainer.evaluation import BASE
from trainer.examples import Example
from trainer.spread import HIGH, LOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, FAINT, GRID = "#1d2433", "#667085", "#98a2b3", "#e4e7ec"
BLUE, BAND, ORANGE = "#1d5fc2", "#c9dcf7", "#c2570c"
OTHERS = ("#98a2b3", "#667085", "#b08968", "#2f8f6b", "#8a5fb0", "#c2570c", "#3d8ea8")
"""Colours of predictors other than the model."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout is the same everywhere
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def example_svg(example: Example, name: str) -> str:
    """History, forecast, interval and what came, of one series. ``name`` is one of the page's figures."""

    def draw(axes: "Axes") -> None:
        from matplotlib import dates

        before = example.history_days.astype("datetime64[D]")
        after = example.days.astype("datetime64[D]")
        forecasts = example.forecasts
        axes.plot(before, example.history, color=FAINT, linewidth=1.1, label="history")
        axes.fill_between(
            after,
            forecasts.sales_p10,
            forecasts.sales_p90,
            color=BAND,
            linewidth=0,
            label="p10 … p90",
        )
        axes.plot(after, forecasts.sales, color=BLUE, linewidth=1.8, label="forecast")
        axes.plot(
            after[example.opened],
            example.actual[example.opened],
            linestyle="none",
            marker="o",
            markersize=3.2,
            color=INK,
            label="actual",
        )
        axes.axvline(before[-1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_ylim(bottom=0)
        locator: Any = dates.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter: Any = dates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=8)

    return _svg(name, (5.2, 2.5), draw)


def steps_svg(steps: Sequence[Step], name: str) -> str:
    """The RMSLE of every predictor by days ahead."""

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        names = {each for step in steps for each in step.scores}
        others = [each for each in _ordered(names) if each != MODEL]
        _line(axes, steps, MODEL, BLUE, 2.6)
        for colour, other in zip(_cycled(len(others)), others, strict=True):
            _line(axes, steps, other, colour, 1.3)
        axes.set_xlabel("days ahead")
        axes.set_ylabel("RMSLE")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)

    return _svg(name, (7.6, 3.0), draw)


def calibration_svg(quantiles: Sequence[Quantile], name: str) -> str:
    """Nominal against observed quantiles; the two that the model publishes stand out."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        for each in quantiles:
            published = each.nominal in (LOW, HIGH)
            colour = BLUE if published else MUTED
            axes.plot(
                [each.nominal] * 2,
                [each.below, each.at_or_below],
                color=colour,
                linewidth=5 if published else 3,
                alpha=0.45,
            )
            axes.plot(
                [each.nominal],
                [(each.below + each.at_or_below) / 2],
                marker="o",
                markersize=6 if published else 4,
                color=colour,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("nominal quantile")
        axes.set_ylabel("share of actuals below it")
        axes.grid(visible=True, axis="both")

    return _svg(name, (3.6, 3.4), draw)


def _line(axes: "Axes", steps: Sequence[Step], predictor: str, colour: str, width: float) -> None:
    there = [step for step in steps if predictor in step.scores]
    axes.plot(
        [step.step for step in there],
        [step.scores[predictor].rmsle for step in there],
        color=colour,
        linewidth=width,
        marker="o" if len(there) == 1 else "",
        zorder=3 if predictor == MODEL else 2,
        label=predictor,
    )


def _ordered(names: set[str]) -> list[str]:
    """The model, the base, then the others by name."""
    return sorted(names, key=lambda name: (name != MODEL, name != BASE, name))


def _cycled(count: int) -> list[str]:
    return [OTHERS[number % len(OTHERS)] for number in range(count)]


def _svg(name: str, inches: tuple[float, float], draw: Callable[["Axes"], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}
    with rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        return _inline(_saved(figure), name)


def _saved(figure: "Figure") -> str:
    written = StringIO()
    figure.savefig(
        written,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    return written.getvalue()


def _inline(text: str, name: str) -> str:
    """The ``svg`` element alone, with the page's font and with no ids but those that it refers to."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    def identity(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]*)"', identity, text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    # The style would hold for the whole page, which says the same of its figures.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    return re.sub(r"font-family: [^;\"]*; ?", "", text)
