"""Steps that choose for themselves: their compute, their base image, a GPU, packages; the last one fails where it is told to."""

import os

from metaflow import FlowSpec, batch, environment, pypi, step
from surroundings import show

OTHER_BASE = os.environ.get("TEST_OTHER_BASE", "")  # where the flow is deployed


class PartsFlow(FlowSpec):
    """Three images on three bases."""

    @batch(image=OTHER_BASE, memory=1000)
    @pypi(packages={"six": "1.16.0"})
    @step
    def start(self):
        show()
        self.next(self.train)

    @batch(gpu=1)
    @pypi(packages={"six": "1.16.0", "idna": "3.10"})
    @step
    def train(self):
        import idna

        show(file=idna.__file__, version=idna.__version__)
        self.next(self.end)

    @environment(vars={"TRAP": os.environ.get("TEST_TRAP", "")})
    @batch
    @pypi(packages={})
    @step
    def end(self):
        show()
        if os.environ["TRAP"]:
            raise RuntimeError("caught in the trap")


if __name__ == "__main__":
    PartsFlow()
