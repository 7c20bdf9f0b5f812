"""A step that waits until it is stopped."""

import time

from metaflow import FlowSpec, pypi_base, step


@pypi_base(packages={"six": "1.16.0"})
class PatientFlow(FlowSpec):
    """Says when it waits."""

    @step
    def start(self):
        print("waiting")
        time.sleep(300)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    PatientFlow()
