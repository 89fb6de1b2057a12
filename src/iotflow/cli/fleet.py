"""A fleet of simulated devices: what they measure, and the faults they have.

What a fleet does follows from its seed and the times of its slots alone: the same slots at
the same times give the same submissions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from iotflow.cli.simulating.chance import Chance

_DAY_S = 86_400
_ABSENCE_TURNS = 5  # how many turns a drop-out lasts on average
_LATEST_S = 6 * 3600  # how late late data is at most
_encode = msgspec.json.Encoder().encode

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of the slots, 0 to 1: sent again, late, and not sent as the device is away."""

    duplicates: float = 0.0
    late: float = 0.0
    dropouts: float = 0.0


class Kind(StrEnum):
    """What a slot of the schedule came to."""

    FRESH = "fresh"
    LATE = "late"
    DUPLICATE = "duplicate"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a device does in its slot. `body` is empty where it is away."""

    device: int
    kind: Kind
    body: bytes = b""
    points: int = 0


@dataclass(slots=True)
class _Device:
    """`traits` are fixed by the seed, between 0 and 1: devices of one kind differ."""

    traits: tuple[float, ...]
    measure: "Callable[[_Device, float, Chance], Data]"
    away_turns: int = 0
    last_ms: int = 0
    sent: int = 0
    last: Submission | None = None


class Fleet:
    """Devices take their turns one after the other."""

    def __init__(self, devices: int, seed: int, faults: Faults) -> None:
        self._chance = Chance(seed)
        self._faults = faults
        self._devices = [self._make(index) for index in range(devices)]

    def _make(self, index: int) -> _Device:
        traits = tuple(self._chance.uniform() for _ in range(4))
        return _Device(traits, _MEASURES[index % len(_MEASURES)])

    def submission(self, slot: int, now_ms: int) -> Submission:
        """What is submitted in a slot. Slots must be asked for in rising order."""
        index = slot % len(self._devices)
        device = self._devices[index]
        if self._is_away(device):
            return Submission(index, Kind.ABSENT)
        if device.last is not None and self._chance.happens(self._faults.duplicates):
            last = device.last
            return Submission(index, Kind.DUPLICATE, last.body, last.points)
        device.last = self._measured(index, device, now_ms)
        return device.last

    def _measured(self, index: int, device: _Device, now_ms: int) -> Submission:
        kind, timestamp_ms = Kind.FRESH, max(now_ms, device.last_ms + 1)
        if self._chance.happens(self._faults.late):
            kind = Kind.LATE
            timestamp_ms -= 1000 + int(self._chance.uniform() * (_LATEST_S * 1000))
        else:
            device.last_ms = timestamp_ms
        device.sent += 1
        data = device.measure(device, timestamp_ms / 1000, self._chance)
        body = _encode({"timestamp": timestamp_ms, "data": data})
        return Submission(index, kind, body, len(data))

    def _is_away(self, device: _Device) -> bool:
        """Absences last some turns; their length makes up for how rarely they begin."""
        if device.away_turns:
            device.away_turns -= 1
            return True
        share = self._faults.dropouts
        if share >= 1:
            return True
        if not self._chance.happens(share / (share + (1 - share) * _ABSENCE_TURNS)):
            return False
        device.away_turns = self._chance.geometric(_ABSENCE_TURNS) - 1
        return True


def _daily(at_s: float, peak_hour: float) -> float:
    """-1 to 1 in the course of a day (UTC)."""
    return math.cos((at_s / 3600 - peak_hour) / 24 * math.tau)


def _drift(at_s: float, trait: float) -> float:
    """A sensor that wanders off by up to one unit in some weeks, and is calibrated again."""
    period_s = (20 + 20 * trait) * _DAY_S
    return (at_s % period_s) / period_s * (2 * trait - 1)


def _measured(value: float, unit: str, digits: int = 2) -> Data:
    return {"value": round(value, digits), "unit": unit}


def _battery(device: _Device, at_s: float) -> Data:
    """Runs down in weeks and is changed."""
    life_s = (30 + 60 * device.traits[3]) * _DAY_S
    return _measured(100 - (at_s + device.traits[2] * life_s) % life_s / life_s * 92, "%", 1)


def _climate(device: _Device, at_s: float, chance: Chance) -> Data:
    base, swing, drift, _ = device.traits
    warm = _daily(at_s, 14.5)
    temperature = 12 + 10 * base + (3 + 4 * swing) * warm + _drift(at_s, drift)
    humidity = 60 + 15 * swing - 14 * warm + chance.normal(1.2)
    pressure = 1013 + 8 * math.sin(at_s / _DAY_S / 5 * math.tau + 6 * base)
    return {
        "temperature": _measured(temperature + chance.normal(0.15), "degC"),
        "humidity": _measured(min(100.0, max(5.0, humidity)), "%", 1),
        "pressure": _measured(pressure + chance.normal(0.3), "hPa", 1),
        "battery": _battery(device, at_s),
    }


def _energy(device: _Device, at_s: float, chance: Chance) -> Data:
    base, swing, _, _ = device.traits
    busy = max(0.0, _daily(at_s, 19)) + 0.6 * max(0.0, _daily(at_s, 8))
    power = 80 + 150 * base + (400 + 1600 * swing) * busy + abs(chance.normal(40))
    meter_wh = int(at_s / 3600 * (150 + 150 * base + 300 * swing))
    return {
        "power": _measured(power, "W", 1),
        "meter": {"value": meter_wh, "unit": "Wh"},
        "voltage": _measured(230 + chance.normal(1.1), "V", 1),
    }


def _air(device: _Device, at_s: float, chance: Chance) -> Data:
    base, swing, drift, _ = device.traits
    people = max(0.0, _daily(at_s, 13)) ** 2
    co2 = 420 + 60 * base + (300 + 500 * swing) * people + 20 * _drift(at_s, drift)
    return {
        "co2": {"value": round(co2 + chance.normal(12)), "unit": "ppm"},
        "pm25": _measured(4 + 10 * base + 6 * people + abs(chance.normal(1.5)), "ug/m3", 1),
        "occupied": people > 0.15,
    }


def _door(device: _Device, at_s: float, chance: Chance) -> Data:
    day = max(0.05, _daily(at_s, 13))
    is_open = chance.happens(0.3 * day)
    return {
        "open": is_open,
        "state": "open" if is_open else "closed",
        "uptime": {"value": device.sent, "unit": "turns"},
        "battery": _battery(device, at_s),
    }


_MEASURES: tuple[Callable[[_Device, float, Chance], Data], ...] = (_climate, _energy, _air, _door)
