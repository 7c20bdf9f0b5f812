"""Asks for what the environment says."""

import json
import os

from metaflow import FlowSpec, conda, pypi, step

ASKED_OF_PYPI = json.loads(os.environ.get("ASKED_OF_PYPI", "{}"))
ASKED_OF_CONDA = json.loads(os.environ.get("ASKED_OF_CONDA", "{}"))


def asking(function):
    """Put those decorators on a step that have something to ask for."""
    if ASKED_OF_PYPI or not ASKED_OF_CONDA:
        function = pypi(packages=ASKED_OF_PYPI)(function)
    return conda(libraries=ASKED_OF_CONDA)(function) if ASKED_OF_CONDA else function


class AskingFlow(FlowSpec):
    """Its steps have equal requirements, hence one image."""

    @asking
    @step
    def start(self):
        self.next(self.end)

    @asking
    @step
    def end(self):
        print("the last step runs")


if __name__ == "__main__":
    AskingFlow()
