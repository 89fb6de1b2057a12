"""The accounts of a simulation: every slot ends in exactly one column."""

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Table

from iotflow.cli.fleet import Kind, Submission
from iotflow.cli.simulating.latencies import Latencies
from iotflow.cli.wire import BROKEN

CREATED = 201


@dataclass(slots=True)
class Ledger:
    """`due` = absent + unsent + answered + broken + waiting, at every moment.

    `unsent` fell due while too much was waiting already; `broken` lost their connection, so
    that it is not known whether they were stored.
    """

    due: int = 0
    unsent: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter[Kind])
    statuses: Counter[int] = field(default_factory=Counter[int])
    points: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def acknowledged(self) -> int:
        return self.statuses[CREATED]

    @property
    def broken(self) -> int:
        return self.statuses[BROKEN]

    @property
    def rejected(self) -> int:
        """Answers other than 201."""
        return self.statuses.total() - self.acknowledged - self.broken

    @property
    def waiting(self) -> int:
        """Due, and without an answer yet."""
        return self.due - self.kinds[Kind.ABSENT] - self.unsent - self.statuses.total()

    @property
    def complete(self) -> bool:
        """Whether everything that was to be submitted is acknowledged."""
        return self.acknowledged == self.due - self.kinds[Kind.ABSENT]

    def note_due(self, submission: Submission) -> None:
        self.due += 1
        self.kinds[submission.kind] += 1

    def note_answer(self, submission: Submission, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        if status != BROKEN:
            self.latencies.add(seconds)
        if status == CREATED:
            self.points += submission.points

    def line(self, rate: float) -> str:
        """The progress in one line; `rate` is acknowledged submissions a second, lately."""
        p50, p99 = (self.latencies.percentile_s(share) * 1000 for share in (0.5, 0.99))
        lost = f", {self.broken + self.unsent:,} not sent" if self.broken + self.unsent else ""
        return (
            f"{self.acknowledged:,} acknowledged, {self.rejected:,} rejected{lost}, "
            f"{rate:,.1f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )

    def table(self, seconds: float) -> Table:
        """The summary at the end."""
        table = Table("", "Submissions", title="Simulation", title_justify="left")
        table.columns[1].justify = "right"
        table.add_row("due", f"{self.due:,}")
        for kind in Kind:
            table.add_row(f"  {kind.value}", f"{self.kinds[kind]:,}")
        table.add_row("acknowledged (201)", f"{self.acknowledged:,}")
        for status, number in sorted(self.statuses.items()):
            if status not in (BROKEN, CREATED):
                table.add_row(f"answered {status}", f"{number:,}")
        for what, number in (
            ("connection lost", self.broken),
            ("never sent: too much was waiting", self.unsent),
            ("no answer at the end", self.waiting),
        ):
            if number:
                table.add_row(what, f"{number:,}")
        table.add_section()
        table.add_row("points acknowledged", f"{self.points:,}")
        table.add_row("acknowledged a second", f"{self.acknowledged / max(seconds, 1e-9):,.1f}")
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            table.add_row(
                f"{name} from due time", f"{self.latencies.percentile_s(share) * 1e3:.1f} ms"
            )
        return table
