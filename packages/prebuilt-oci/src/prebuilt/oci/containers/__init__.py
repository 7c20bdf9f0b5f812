"""Container runs of an image, on this machine: by Docker, Podman, or Linux namespaces of this user's own."""

from prebuilt.oci.containers.engine import Engine, RunningContainer, run_to_end
from prebuilt.oci.containers.run import ContainerRun, Mount
from prebuilt.oci.containers.selection import available_engines, open_engine, select_engine

__all__ = [
    "ContainerRun",
    "Engine",
    "Mount",
    "RunningContainer",
    "available_engines",
    "open_engine",
    "run_to_end",
    "select_engine",
]
