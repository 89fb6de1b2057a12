"""How long things stay in the cache, whatever adapter keeps them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheTtls:
    """Times to live in seconds.

    A latest entry lives `latest_s` from its fill, and every submission that it takes in begins
    that time anew; but `latest_max_s` after the fill it ends however busy the device is. So a
    submission that was written and never recorded (its process was killed in between) is
    missing from answers for a bounded time only.

    `tombstone_s` and `forget_s` must be longer than a look-up of a key can be under way
    (the registry's time limit), `drop_guard_s` longer than a submission can be under way
    from its write mark to its record. What began before and ends later is not kept off.
    """

    key_s: float = 3600
    unknown_key_s: float = 5
    tombstone_s: float = 60
    forget_s: float = 10
    latest_s: float = 600
    latest_max_s: float = 3600
    drop_guard_s: float = 60
    online_s: float = 300
