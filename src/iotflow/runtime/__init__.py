"""The composition root: everything is built here, and nowhere else."""

from iotflow.runtime.runtime import Runtime, WorkerProcess, open_runtime

__all__ = ["Runtime", "WorkerProcess", "open_runtime"]
