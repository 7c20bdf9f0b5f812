"""Two steps that ask for nothing."""

from metaflow import FlowSpec, step


class BareFlow(FlowSpec):
    """Asks for nothing."""

    @step
    def start(self):
        """Begin."""
        self.next(self.end)

    @step
    def end(self):
        """End."""


if __name__ == "__main__":
    BareFlow()
