"""Figures: medians with their spread, ratios, and the table they end in."""

import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over several rounds."""

    rounds: tuple[float, ...]
    unit: str = "ms"

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        if len(self.rounds) == 1:
            return f"{short(self.median)} {self.unit}"
        low, high = short(min(self.rounds)), short(max(self.rounds))
        return f"{short(self.median)} {self.unit} [{low}-{high}]"


@dataclass(slots=True)
class Table:
    """Rows of what, by whom, how much, compared to the first, and what was promised."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    comparison: str = "isthmus takes"

    def add(
        self,
        what: str,
        who: str,
        figure: Figure,
        *,
        ours: Figure | None = None,
        beside: str = "",
        promise: str = "",
    ) -> None:
        """Add a row, and show it at once; *ours* is what this figure is compared with.

        *beside* is that comparison where it is made otherwise.
        """
        ratio = f"1/{figure.median / ours.median:.1f}" if ours else beside
        self.rows.append((what, who, str(figure), ratio, promise))
        sys.stderr.write(f"{what:34} {who:28} {figure!s:34} {ratio:8} {promise}\n")

    def text(self) -> str:
        head = ("Measure", "Who", "Median [least-most of the rounds]", self.comparison, "Promise")
        lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *self.rows)]
        return "\n".join(lines)


def paired(these: Figure, those: Figure) -> str:
    """Median of *these* by *those*, round by round, with its 95 % interval by order statistics.

    With fewer than six rounds no interval has that confidence: it is then least to most.
    """
    ratios = sorted(a / b for a, b in zip(these.rounds, those.rounds, strict=True))
    count, beyond, left_out = len(ratios), 0.5 ** len(ratios), 0
    while beyond + math.comb(count, left_out + 1) * 0.5**count <= 0.025:
        left_out += 1
        beyond += math.comb(count, left_out) * 0.5**count
    low, high = ratios[left_out], ratios[-1 - left_out]
    return f"{statistics.median(ratios):.2f} [{low:.2f}-{high:.2f}]"


def circumstances() -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} processors, Linux {os.uname().release}, Python"
        f" {sys.version.split()[0]}; load average at the end {load}."
    )


def quantile(values: Sequence[float], part: float) -> float:
    """The value that *part* of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def short(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
