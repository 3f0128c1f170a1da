"""The picture of one evaluated example between its proponents and its opponents, with the relevance in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deel_dualview.plots.formatting import brief, signed
from deel_dualview.plots.panels import INK, LINE, MUTED, WARNING, Panel, equally_strong, heat_limit


def draw(
    image: np.ndarray,
    title: str,
    *,
    proponents: Sequence[Panel],
    opponents: Sequence[Panel],
    colours: Colormap,
    note: str = "",
) -> Figure:
    """Draw the picture: opponents to the left (the strongest nearest), the evaluated example, proponents to the right.

    Args:
        image: the evaluated example, (h, w, channels).
        title: what is said under it.
        proponents: the strongest first.
        opponents: the strongest first.
        colours: of relevance from negative to positive.
        note: what must be known of the heatmaps, written below.
    """
    left, right = list(reversed(opponents)), list(proponents)
    panels = [*left, *right]
    widths = [*[1.0] * len(left), 1.24, *[1.0] * len(right)]
    figure = Figure(figsize=(1.22 * sum(widths) + 1.33, 1.24 + 3.76 * _tallness(image)))
    inch = 1 / figure.get_figheight()
    grid = figure.add_gridspec(
        3, len(widths), width_ratios=widths, left=0.34 / figure.get_figwidth(), right=1 - 0.74 / figure.get_figwidth(),
        top=1 - 0.68 * inch, bottom=0.58 * inch, hspace=0.16, wspace=0.09,
    )  # fmt: skip
    axes = [[figure.add_subplot(grid[row, column]) for column in range(len(widths))] for row in range(3)]
    middle, bounds = len(left), black_and_white([image, *(panel.inputs for panel in panels)])
    limits = [
        heat_limit([panel.train_relevance for panel in panels]),
        heat_limit([panel.test_relevance for panel in panels]),
    ]
    for column, panel in zip([*range(middle), *range(middle + 1, len(widths))], panels, strict=True):
        _heat(axes[0][column], panel.train_relevance, limits[0], colours)
        _picture(axes[1][column], panel.inputs, bounds)
        _heat(axes[2][column], panel.test_relevance, limits[1], colours)
        _say(axes[2][column], signed(panel.value), f"{panel.label}  ·  #{panel.position}")
    _picture(axes[1][middle], image, bounds)
    _middle([row[middle] for row in axes], title, panels, colours)
    _heads(figure, axes, left, right)
    _rows(figure, [row[0] for row in axes])
    _bars(figure, [row[-1] for row in axes], limits, colours)
    figure.text(0.5, 0.05 * inch, note, ha="center", va="bottom", color=WARNING, fontsize=6.5)
    return figure


def _middle(column: Sequence[Axes], title: str, panels: Sequence[Panel], colours: Colormap) -> None:
    """Draw the evaluated example and, under it, the sum of its relevance over the pairs shown."""
    total = np.sum([panel.test_relevance for panel in panels], axis=0)
    column[0].axis("off")
    column[0].text(
        0.5, 0.04, title, transform=column[0].transAxes, ha="center", va="bottom", color=INK, fontsize=9,
        linespacing=1.5, fontweight="bold",
    )  # fmt: skip
    limit = heat_limit([total])
    _heat(column[2], total, limit, colours)
    for axes in column[1:]:
        for spine in axes.spines.values():
            spine.set(color=INK, linewidth=1.4)
    values = sum(panel.value for panel in panels)
    _say(column[2], signed(values), f"sum of the pairs, ±{brief(limit)[1:]}")


def _heads(
    figure: Figure, axes: Sequence[Sequence[Axes]], left: Sequence[Panel], right: Sequence[Panel]
) -> None:
    """Write what stands on either side."""
    middle = len(left)
    for first, last, text, side in (
        (0, middle - 1, "Opponents", f"speak against it{equally_strong(left)}"),
        (middle + 1, middle + len(right), "Proponents", f"support it{equally_strong(right)}"),
    ):
        if last < first:
            continue
        low, high = axes[0][first].get_position().x0, axes[0][last].get_position().x1
        inch = 1 / figure.get_figheight()
        figure.text(
            (low + high) / 2, 1 - 0.225 * inch, text, ha="center", color=INK, fontsize=11, fontweight="bold"
        )
        figure.text((low + high) / 2, 1 - 0.41 * inch, side, ha="center", color=MUTED, fontsize=8.5)
        figure.add_artist(_rule(figure, low, high, 1 - 0.5 * inch))


def _rule(figure: Figure, low: float, high: float, height: float) -> Line2D:
    return Line2D([low, high], [height, height], color=LINE, linewidth=0.8, transform=figure.transFigure)


def _bars(figure: Figure, last: Sequence[Axes], limits: Sequence[float], colours: Colormap) -> None:
    """Draw the colour scale of the row of training relevance and of that of test relevance."""
    for axes, limit in ((last[0], limits[0]), (last[2], limits[1])):
        box, inch = axes.get_position(), 1 / figure.get_figwidth()
        bar = figure.add_axes((box.x1 + 0.1 * inch, box.y0, 0.09 * inch, box.height))
        bar.imshow(np.linspace(1, -1, 256)[:, np.newaxis], aspect="auto", cmap=colours, extent=(0, 1, -1, 1))
        bar.set_xticks([])
        bar.grid(visible=False)
        bar.yaxis.tick_right()
        bar.set_yticks([-1, 0, 1], [brief(-limit), "0", brief(limit)], fontsize=7.5, color=MUTED)
        bar.tick_params(axis="y", length=0, pad=2)
        bar.spines[:].set_visible(False)


def _rows(figure: Figure, first: Sequence[Axes]) -> None:
    """Write at the left what each row shows."""
    for axes, text in zip(
        first, ("relevance\nin training", "training\nimage", "relevance\nin test"), strict=True
    ):
        box = axes.get_position()
        figure.text(
            0.16 / figure.get_figwidth(), (box.y0 + box.y1) / 2, text, rotation=90, ha="center", va="center",
            color=MUTED, fontsize=7.5,
        )  # fmt: skip


def _picture(axes: Axes, image: np.ndarray, bounds: tuple[float, float]) -> None:
    low, high = bounds
    values = np.nan_to_num(np.asarray(image, np.float64), nan=low, posinf=high, neginf=low)
    scaled = np.clip((values - low) / (high - low), 0, 1)
    # Of four channels the last is taken for opacity and left out; of other numbers the mean is drawn.
    shown = (
        scaled[..., :3]
        if scaled.shape[-1] in (3, 4)
        else scaled.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    )
    axes.imshow(shown, interpolation="nearest")
    _frame(axes)


def black_and_white(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return which values are black and white in all images of a picture, so that they can be compared.

    Bytes, and floats that look like bytes, keep 0 to 255; others [0, 1] or [-1, 1] if they lie inside, or else their
    own extremes.
    """
    finite = [np.asarray(image)[np.isfinite(image)] for image in images]
    low = min((float(own.min()) for own in finite if own.size), default=0.0)
    high = max((float(own.max()) for own in finite if own.size), default=1.0)
    is_bytes = all(np.asarray(image).dtype == np.uint8 for image in images)
    if is_bytes or low >= 0 and 128 < high <= 255:
        return 0.0, 255.0
    for bounds in ((0.0, 1.0), (-1.0, 1.0)):
        if bounds[0] <= low and high <= bounds[1]:
            return bounds
    return low, high if high > low else low + 1.0


def _heat(axes: Axes, relevance: np.ndarray, limit: float, colours: Colormap) -> None:
    axes.imshow(relevance, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE, linewidth=0.8)


def _say(axes: Axes, value: str, text: str) -> None:
    for line, points, colour, size in ((value, -5, INK, 9.5), (text, -19, MUTED, 7.5)):
        axes.annotate(
            line, (0.5, 0), (0, points), xycoords="axes fraction", textcoords="offset points", ha="center", va="top",
            color=colour, fontsize=size,
        )  # fmt: skip


def _tallness(image: np.ndarray) -> float:
    """Return height over width, of what is much longer than wide no more than the page bears."""
    return float(np.clip(image.shape[0] / image.shape[1], 0.55, 2.5))
