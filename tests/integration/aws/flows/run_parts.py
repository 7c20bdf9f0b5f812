"""Run the flow of parts with Metaflow's Runner, into its trap, and resume it without."""

from pathlib import Path

from metaflow import Runner

FLOW = str(Path(__file__).with_name("parts.py"))

with Runner(FLOW, environment="prebuilt", env={"TEST_TRAP": "set"}).run() as first:
    print(f"first: {first.status}")
with Runner(FLOW, environment="prebuilt").resume(origin_run_id=first.run.id) as second:
    print(f"second: {second.status} {second.run.successful}")
