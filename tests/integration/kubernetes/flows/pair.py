"""Two steps that are sent to the cluster where they are written, one on a base image of its own, one with a GPU if there is one."""

import os

from metaflow import FlowSpec, Parameter, kubernetes, pypi_base, schedule, step
from surroundings import show

# Where the flow is deployed.
OTHER_BASE = os.environ.get("TEST_OTHER_BASE", "")
GPUS = os.environ.get("TEST_GPUS")


@schedule(daily=True)
@pypi_base(packages={"six": "1.16.0"})
class PairFlow(FlowSpec):
    """Two images, on two bases."""

    word = Parameter("word", default="plain")

    @kubernetes(image=OTHER_BASE)
    @step
    def start(self):
        self.doubled = self.word * 2
        show(word=self.word)
        self.next(self.end)

    @kubernetes(gpu=GPUS)
    @step
    def end(self):
        show(word=self.doubled)


if __name__ == "__main__":
    PairFlow()
