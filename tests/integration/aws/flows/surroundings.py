"""What a task sees of where it is; a module beside the flow, as users have them."""

import json
import os
import socket
import sys
from importlib.metadata import distributions
from pathlib import Path

NOWHERE = ("192.0.2.1", 443)  # an address that is nobody's
STARTED = []  # programs, by this process


def _hear(event, arguments):
    if event in {"subprocess.Popen", "os.exec", "os.posix_spawn"}:
        STARTED.append(str(arguments[0]))
    elif event == "os.system":
        STARTED.append(str(arguments[0]).split()[0])


sys.addaudithook(_hear)


def show(**more):
    """Print it as one line of JSON, for the test that reads the job's log."""
    seen = {
        "python": sys.executable,
        "packages": {str(each.locate_file(f"{each.name}=={each.version}")) for each in distributions()},
        "image": os.environ.get("METAFLOW_PREBUILT_IMAGE"),
        "started": STARTED,
        "job": os.environ.get("AWS_BATCH_JOB_ID"),
        "default_routes": [
            line for line in Path("/proc/net/route").read_text().splitlines() if "\t00000000\t" in line[:14]
        ],
        "way_out": _way_out(),
        **more,
    }
    print(f"seen: {json.dumps(seen, default=sorted)}")


def _way_out():
    try:
        socket.create_connection(NOWHERE, timeout=2).close()
    except OSError as error:
        return str(error)
    return None
