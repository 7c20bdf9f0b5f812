"""What goes wrong in flows: a step that fails at first, one that always does, one that takes too long."""

import os
import time
from pathlib import Path

from metaflow import FlowSpec, catch, current, pypi_base, retry, step, timeout


@pypi_base(packages={"six": "1.16.0"})
class TroubledFlow(FlowSpec):
    """Comes to its end nevertheless, unless there is a file ``trap`` in the datastore."""

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        if current.retry_count == 0:
            msg = "the first attempt fails"
            raise RuntimeError(msg)
        self.attempt = current.retry_count
        self.next(self.caught)

    @catch(var="failure", print_exception=False)
    @step
    def caught(self):
        msg = "this is caught"
        raise ValueError(msg)
        self.next(self.slow)

    @catch(var="too_slow", print_exception=False)
    @timeout(seconds=2)
    @step
    def slow(self):
        time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        if Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow", "trap").exists():
            os._exit(7)
        print("came through")


if __name__ == "__main__":
    TroubledFlow()
