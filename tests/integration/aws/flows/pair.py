"""Two steps, one of which asks for nothing."""

import os

from metaflow import FlowSpec, Parameter, pypi, step
from surroundings import show


class PairFlow(FlowSpec):
    """The start step's image is baked, the other's is the cluster's."""

    word = Parameter("word", default="plain")

    @pypi(packages={"idna": os.environ.get("TEST_IDNA", "3.10")})
    @step
    def start(self):
        show(word=self.word)
        self.next(self.end)

    @step
    def end(self):
        show(word=self.word)


if __name__ == "__main__":
    PairFlow()
