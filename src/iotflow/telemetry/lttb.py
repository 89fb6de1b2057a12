"""Largest-Triangle-Three-Buckets: a long series as a chart shows it.

Sveinn Steinarsson, "Downsampling Time Series for Visual Representation", 2013.
"""

from collections.abc import Sequence

from iotflow.stores.telemetry.protocol import Sample


def thin(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` (3 or more) of the samples, the first and the last among them.

    Each bucket gives the sample that spans the largest triangle with the one chosen before
    and the average of the bucket after.
    """
    total = len(samples)
    if total <= count:
        return list(samples)
    chosen = [samples[0]]
    width = (total - 2) / (count - 2)
    for bucket in range(count - 2):
        begin, end = int(bucket * width) + 1, int((bucket + 1) * width) + 1
        after = samples[end : min(int((bucket + 2) * width) + 1, total)] or samples[-1:]
        chosen.append(_largest(samples[begin:end], chosen[-1], after))
    chosen.append(samples[-1])
    return chosen


def _largest(bucket: Sequence[Sample], before: Sample, after: Sequence[Sample]) -> Sample:
    # Relative to the sample before: epoch milliseconds squared would lose the small differences.
    mean_x = sum(each.timestamp_ms - before.timestamp_ms for each in after) / len(after)
    mean_y = sum(each.value for each in after) / len(after) - before.value
    return max(
        bucket,
        key=lambda each: abs(
            (each.timestamp_ms - before.timestamp_ms) * mean_y
            - mean_x * (each.value - before.value)
        ),
    )
