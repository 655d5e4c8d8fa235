"""Figures: medians with their spread, ratios, and the table they end in."""

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

    def add(
        self, what: str, who: str, figure: Figure, *, ours: Figure | None = None, promise: str = ""
    ) -> None:
        """Add a row, and show it at once; *ours* is what this figure is compared with."""
        ratio = f"1/{figure.median / ours.median:.1f}" if ours else ""
        self.rows.append((what, who, str(figure), ratio, promise))
        sys.stderr.write(f"{what:34} {who:28} {figure!s:34} {ratio:8} {promise}\n")

    def text(self) -> str:
        head = ("Measure", "Who", "Median [least-most of the rounds]", "isthmus takes", "Promise")
        lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *self.rows)]
        return "\n".join(lines)


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
