"""What a job in the registry was asked for."""

from collections.abc import Mapping
from typing import Any

import msgspec

from iotflow.domain.times import DAY_MS, MAX_TIMESTAMP_MS, TimeRange
from iotflow.maintenance.submissions import MarkRange, StoredSubmission

ALL_POINTS = TimeRange(0, MAX_TIMESTAMP_MS + 1)


class ReplayParameters(msgspec.Struct, frozen=True):
    """Submissions of these devices (None: of all) that were written in [from_us, to_us).

    Their points are looked for in [points_from_ms, points_to_ms). One with a point before
    `edge_ms` may have more of them than those: then all points of its device are looked through.
    `automatic` where the service has noticed by itself that events were lost.
    """

    from_us: int
    to_us: int
    points_from_ms: int = ALL_POINTS.start_ms
    points_to_ms: int = ALL_POINTS.end_ms
    device_ids: list[int] | None = None
    automatic: bool = False
    edge_ms: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def written(self) -> MarkRange:
        return MarkRange(self.from_us, self.to_us)

    @property
    def points(self) -> TimeRange:
        return TimeRange(self.points_from_ms, self.points_to_ms)

    def may_have_more(self, submission: StoredSubmission) -> bool:
        """Whether points of it may lie outside of where they are looked for."""
        return self.edge_ms is not msgspec.UNSET and submission.first_ms < self.edge_ms

    def merged(self, other: "ReplayParameters", max_devices: int) -> "ReplayParameters":
        """What both ask for together, and perhaps a little more."""
        ids: list[int] | None = None
        if self.device_ids is not None and other.device_ids is not None:
            ids = sorted({*self.device_ids, *other.device_ids})
            ids = ids if len(ids) <= max_devices else None
        return ReplayParameters(
            min(self.from_us, other.from_us),
            max(self.to_us, other.to_us),
            min(self.points_from_ms, other.points_from_ms),
            max(self.points_to_ms, other.points_to_ms),
            ids,
            self.automatic,
        )


class VerificationParameters(msgspec.Struct, frozen=True):
    """Points in [from_ms, to_ms), and the submissions that wrote them."""

    from_ms: int
    to_ms: int
    device_ids: list[int] | None = None
    repair: bool = False


class WarmingParameters(msgspec.Struct, frozen=True):
    """Devices that were seen since then; None is any."""

    seen_since_ms: int | None = None


def written_range(from_ms: int, to_ms: int) -> MarkRange:
    """The marks of submissions that were written in a range of milliseconds."""
    return MarkRange(from_ms * 1000, to_ms * 1000)


def points_of(
    from_ms: int, to_ms: int, late_ms: int | None, max_future_ms: int
) -> tuple[TimeRange, int | msgspec.UnsetType]:
    """Where the points of submissions lie that were written then, at most `late_ms` before, and
    the edge before which there should be none.

    A day before it is looked through as well: what is found there tells of a batch that reaches
    further back than was said. None is as early as there are any; then nothing is assumed of the
    other end either.
    """
    if late_ms is None:
        return ALL_POINTS, msgspec.UNSET
    edge_ms = from_ms - late_ms
    # A device's clock may run ahead, by as much as ingest lets it; a day more costs nothing.
    return TimeRange(max(0, edge_ms - DAY_MS), to_ms + max_future_ms + DAY_MS), edge_ms


def as_json(parameters: msgspec.Struct) -> Mapping[str, Any]:
    """As the registry keeps them."""
    kept: Mapping[str, Any] = msgspec.to_builtins(parameters)
    return kept
