"""IoTFlow: telemetry over HTTP, from a laptop to a fleet."""

from importlib.metadata import version

__version__ = version("iotflow")
