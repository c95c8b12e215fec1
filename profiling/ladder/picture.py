"""Draw what each rung's block computes, to scale: docs/images/ladder.svg."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.plots.style import BLUE, FAINT, GREEN, INK, MUTED

from .counts import Counts

UNIT = 0.5  # of the picture for a pixel or a filter
GAP, TOP, BELOW = 26, 34, 74


def svg(counts: Sequence[Counts]) -> str:
    """Return the picture: a tile a rung, its pixels across and its filters down, its threads' or
    warps' share dark, and what it fetches for a multiply-add beneath."""
    widths = [max(70.0, UNIT * each.block.pixels) for each in counts]
    height = TOP + UNIT * max(each.block.filters for each in counts)
    width = sum(widths) + GAP * (len(counts) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height + BELOW:g}"'
        f' width="{width:g}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f'<rect width="{width:g}" height="{height + BELOW:g}" fill="white"/>',
        f'<text x="{GAP}" y="20" fill="{INK}" font-size="12.5"><tspan font-weight="bold">What one'
        f" block computes</tspan>, to scale: pixels across, filters down. Dark: what one"
        f" thread, or one warp or warpgroup, keeps in registers.</text>",
    ]
    left = float(GAP)
    for each, room in zip(counts, widths, strict=True):
        parts += _tile(each, left, height)
        left += room + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _tile(each: Counts, left: float, bottom: float) -> list[str]:
    block, rung = each.block, each.rung
    tall, wide = UNIT * block.filters, UNIT * block.pixels
    own_tall, own_wide = (max(1.5, UNIT * n) for n in (block.own_filters, block.own_pixels))
    colour = BLUE if rung.dtype == "float32" else GREEN
    lines = (
        (f"{rung.number} {rung.name}", INK, "bold"),
        (f"{block.pixels} x {block.filters}", MUTED, "normal"),
        (f"{each.bytes:.3g} bytes", MUTED, "normal"),
        ("a multiply-add", MUTED, "normal"),
    )
    return [
        f'<rect x="{left:g}" y="{bottom - tall:g}" width="{wide:g}" height="{tall:g}"'
        f' fill="{FAINT}" stroke="{colour}"/>',
        f'<rect x="{left:g}" y="{bottom - tall:g}" width="{own_wide:g}" height="{own_tall:g}"'
        f' fill="{colour}"/>',
        *(
            f'<text x="{left:g}" y="{bottom + 17 + 15 * i:g}" fill="{ink}" font-weight="{weight}">'
            f"{text}</text>"
            for i, (text, ink, weight) in enumerate(lines)
        ),
    ]
