"""Stands for the docker command: keeps what it is told to build in the folder RECORD, and says what docker says."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

record = Path(os.environ["RECORD"])
command, *arguments = sys.argv[1:]
if command == "build":
    number = len(list(record.glob("build-*")))
    shutil.copytree(arguments[-1], record / f"build-{number}")
    (record / f"build-{number}.json").write_text(json.dumps(arguments[:-1]))
    sys.stdout.write("Step 1/9 : FROM base\n")
    if "BROKEN" in os.environ:
        sys.exit("no space left on device")
elif command == "push":
    with (record / "pushed").open("a") as pushed:
        pushed.write(f"{arguments[-1]}\n")
else:
    known = (record / "pushed").read_text().split() if (record / "pushed").exists() else []
    sys.exit(None if arguments[-1] in known else f"no such manifest: {arguments[-1]}")
