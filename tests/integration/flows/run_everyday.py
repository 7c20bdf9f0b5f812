"""Runs the everyday flow by Metaflow's Runner, with the decorators that it is given on every step; prints where its end ran."""

import sys
from pathlib import Path

from metaflow import Runner

flow = Path(__file__).with_name("everyday.py")
runner = Runner(str(flow), environment="prebuilt", show_output=False)
with runner.run(word="runner", decospecs=sys.argv[1:] or None) as running:
    print(running.status, *running.run["end"].task["place"].data[:2])
