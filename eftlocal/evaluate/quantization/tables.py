"""Tables and figures of what quantization does."""

from __future__ import annotations

from itertools import product

from ...tables import Cell, Column, Estimate, Table
from ..report import Figure, Line, Point
from .found import Found
from .subject import PAIRED, PARTS

_PERCENT = 100.0
_PER_GIGABYTE = 1000.0
_AS_IT_IS = "as it is"


def effects(found: Found) -> Table:
    """What quantizing each part saves and does, at alpha 1."""
    rows: list[tuple[Cell, ...]] = []
    for name in found.types:
        for part in found.parts[name]:
            moved = found.moved["1", name, part]
            saved = found.saved(name, part)
            kl = found.per_token(moved.sums)
            rows.append(
                (
                    name,
                    part,
                    found.types_of(name, part),
                    found.bits(name, part),
                    saved,
                    kl,
                    found.quantile(moved.kl, 0.5),
                    found.quantile(moved.kl, 0.99),
                    found.per_token(moved.changed, _PERCENT),
                    found.per_token(moved.variation),
                    _scaled(kl, _PER_GIGABYTE / saved) if saved > 0 else None,
                )
            )
    columns = (
        Column("type", "type"),
        Column("quantized", "quantized"),
        Column("tensors", "tensors"),
        Column("bits_per_weight", "bits", 2),
        Column("saved_mb", "MB saved", 2),
        Column("kl_nats", "KL, nats", 5),
        Column("kl_median_nats", "KL, median", 5),
        Column("kl_99_nats", "KL, 99 %", 4),
        Column("changed_percent", "other top token, %", 1),
        Column("total_variation", "total variation", 4),
        Column("kl_nats_per_gb", "KL per GB saved", 3),
    )
    notes: tuple[str, ...] = (
        "KL(F || F_q) per token: F is the fused distribution of the files as they are, F_q that "
        "with one part quantized. tensors: what llama.cpp made of the type that was asked for.",
        "Quantize what has the least KL per GB saved, and stop where KL becomes as large as you "
        "would accept of one model.",
    )
    if unsaved := found.unsaved():
        listed = "; ".join(f"{name} ({', '.join(roles)})" for name, roles in unsaved.items())
        notes += (
            f"Nothing is saved by {listed}: the rows are too short for these types, and llama.cpp "
            "took others. Claims leave them out.",
        )
    return Table("What quantizing each role does, alpha 1", columns, tuple(rows), notes)


def dynamic(found: Found) -> Table:
    """The same with an alpha that is searched for every token."""
    rows: list[tuple[Cell, ...]] = []
    for name in found.types:
        for part in found.parts[name]:
            moved = found.moved["dynamic", name, part]
            rows.append(
                (
                    name,
                    part,
                    found.per_token(moved.sums),
                    found.per_token(moved.changed, _PERCENT),
                    found.per_token(moved.variation),
                    found.ratio(moved.sums, found.sums(name, part)),
                )
            )
    columns = (
        Column("type", "type"),
        Column("quantized", "quantized"),
        Column("kl_nats", "KL, nats", 5),
        Column("changed_percent", "other top token, %", 1),
        Column("total_variation", "total variation", 4),
        Column("times_alpha_1", "KL / KL of alpha 1", 2),
    )
    return Table("What quantizing each role does, dynamic alpha", columns, tuple(rows))


def cancelling(found: Found) -> Table:
    """Whether errors of tuned and reference cancel in the delta."""
    rows: list[tuple[Cell, ...]] = []
    for alpha, name in product(("1", "dynamic"), found.types):
        if PAIRED not in found.parts[name]:
            continue
        tuned, reference, both = (
            found.sums(name, part, alpha) for part in ("tuned", "reference", PAIRED)
        )
        rows.append(
            (
                alpha,
                name,
                *(found.per_token(sums) for sums in (tuned, reference, both)),
                found.ratio(both, tuned + reference),
                found.ratio(both, tuned),
            )
        )
    columns = (
        Column("alpha", "alpha"),
        Column("type", "type"),
        Column("tuned_nats", "tuned only", 5),
        Column("reference_nats", "reference only", 5),
        Column("both_nats", "both", 5),
        Column("both_of_sum", "both / sum of the two", 2),
        Column("both_of_tuned", "both / tuned only", 2),
    )
    notes = (
        "both / sum: about 1 where the errors have nothing to do with each other, 0 where they "
        "cancel in the delta. both / tuned only: below 1 where quantizing the reference as well "
        "repairs what quantizing the tuned model did.",
    )
    return Table("KL with tuned, reference, or both of the same type", columns, tuple(rows), notes)


def mixtures(found: Found) -> Table:
    """Types of the base and of the pair that no other mixture beats in size and KL."""
    kinds = {
        part: ["", *(name for name in found.types if part in found.parts[name])]
        for part in ("base", PAIRED)
    }
    known = [
        (
            found.megabytes(base, "base") + found.megabytes(pair, PAIRED),
            found.per_token(found.sums(base, "base") + found.sums(pair, PAIRED)),
            base,
            pair,
        )
        for base, pair in product(kinds["base"], kinds[PAIRED])
    ]
    rows: list[tuple[Cell, ...]] = []
    least = float("inf")
    for size, kl, base, pair in sorted(known, key=lambda one: (one[0], one[1].value)):
        if kl.value < least:
            least = kl.value
            rows.append((size, base or _AS_IT_IS, pair or _AS_IT_IS, kl))
    columns = (
        Column("size_mb", "MB in all", 2),
        Column("base", "base"),
        Column("pair", PAIRED),
        Column("kl_nats", "KL, nats", 5),
    )
    notes = (
        "KL here is that of the base alone plus that of the pair alone; the first table has both "
        "of one type together. Mixtures that another one beats in both columns are left out.",
    )
    return Table("Where to spend bytes: the best mixtures", columns, tuple(rows), notes)


def by_bits(found: Found) -> Figure:
    """KL by bits per weight, a line per part."""
    lines = []
    for part in PARTS:
        points = [
            Point(found.bits(name, part), kl, name)
            for name in found.types
            if part in found.parts[name]
            and (kl := found.per_token(found.sums(name, part))).value > 0
        ]
        lines.append(Line(part, tuple(sorted(points, key=_x))))
    return Figure(
        "How far a quantized role moves the fused distribution, alpha 1",
        "bits per weight of what is quantized",
        "KL, nats per token",
        tuple(line for line in lines if line.points),
        "All other roles are as they were.",
        log_y=True,
    )


def _x(point: Point) -> float:
    return point.x.value if isinstance(point.x, Estimate) else point.x


def _scaled(estimate: Estimate, scale: float) -> Estimate:
    return Estimate(estimate.value * scale, estimate.low * scale, estimate.high * scale)
