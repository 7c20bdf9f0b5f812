"""A flow that an event starts, where the deployment names one."""

import os

from metaflow import FlowSpec, pypi_base, step, trigger

EVENT = os.environ.get("TEST_EVENT")
on_event = trigger(event=EVENT) if EVENT else lambda flow: flow


@on_event
@pypi_base(packages={"six": "1.16.0"})
class ListenerFlow(FlowSpec):
    """Nothing but what has to be there."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ListenerFlow()
