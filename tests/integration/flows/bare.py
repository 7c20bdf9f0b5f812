"""Asks for nothing."""

import sys

from metaflow import FlowSpec, step


class BareFlow(FlowSpec):
    """Two steps."""

    @step
    def start(self):
        print(f"bare: {sys.executable}")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BareFlow()
