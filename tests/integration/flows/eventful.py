"""A flow to which everything happens: a first attempt that fails, a branch that takes too long, Ctrl-C while its end waits."""

import os
import time
from pathlib import Path

from metaflow import FlowSpec, catch, current, pypi_base, resources, retry, step, timeout


@pypi_base(packages={"six": "1.16.0"})
class EventfulFlow(FlowSpec):
    """Comes to its end nevertheless, once there is no file ``wait`` in the datastore."""

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count == 0:
            msg = "the first attempt fails"
            raise RuntimeError(msg)
        self.naps = [0, 60]
        self.next(self.nap, foreach="naps")

    @resources(cpu=500, memory=900)  # of a node that no desk has
    @catch(var="too_slow", print_exception=False)
    @timeout(seconds=3)
    @step
    def nap(self):
        time.sleep(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.outcomes = [str(each.too_slow) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        if Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow", "wait").exists():
            print("waiting")
            time.sleep(300)
        print("came through")


if __name__ == "__main__":
    EventfulFlow()
