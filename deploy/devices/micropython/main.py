"""The program of the board: joins the network, sets the clock, measures, sends.

Settings come from `config.json` (see config.example.json). What is yours to change is
`read_sensors`.
"""

import gc
import json
import sys
import time

from iotflow_device import Device, clock_is_set

ON_A_BOARD = sys.platform != "linux"
NTP_EVERY_MS = 6 * 3600 * 1000


def read_sensors():
    return {"free_memory": {"value": gc.mem_free(), "unit": "B"}, "uptime_ms": time.ticks_ms()}


def join_network(wifi):
    import network

    station = network.WLAN(network.STA_IF)
    station.active(True)
    if not station.isconnected():
        station.connect(wifi["ssid"], wifi["password"])
    for _ in range(100):
        if station.isconnected():
            return
        time.sleep_ms(100)


def set_clock():
    import ntptime

    try:
        ntptime.settime()
    except (OSError, OverflowError) as error:
        print("NTP:", repr(error))


def main(path="config.json"):
    with open(path) as file:
        settings = json.load(file)
    pace = {"interval_ms": int(settings.get("interval_s", 10) * 1000)}

    def apply(config):
        seconds = config.get("interval_s")
        if isinstance(seconds, (int, float)) and 0.05 <= seconds <= 86400:
            pace["interval_ms"] = int(seconds * 1000)
        print("configured:", pace["interval_ms"], "ms")
        return {"interval_s": pace["interval_ms"] / 1000}

    device = Device(settings, on_config=apply)
    left = settings.get("measurements")  # for a trial run: stop after so many
    next_reading = next_ntp = time.ticks_ms()
    while left is None or left > 0 or len(device.outbox):
        now = time.ticks_ms()
        if ON_A_BOARD and time.ticks_diff(now, next_ntp) >= 0:
            join_network(settings["wifi"])
            set_clock()
            next_ntp = time.ticks_add(now, NTP_EVERY_MS if clock_is_set() else 5000)
        # Without a clock a reading has no moment, and could not be sent twice without harm.
        due = time.ticks_diff(now, next_reading) >= 0
        if due and clock_is_set() and (left is None or left > 0):
            data = read_sensors()
            print("measured", device.measure(data), json.dumps(data))
            next_reading = time.ticks_add(now, pace["interval_ms"])
            left = None if left is None else left - 1
        device.poll()
        time.sleep_ms(10)
    print("stored", device.stored, "rejected", device.rejected, "dropped", device.outbox.dropped)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "config.json")
