"""Steps that ask for packages, one that has them disabled, and one that asks for nothing."""

from metaflow import FlowSpec, conda, pypi, step


class PlainFlow(FlowSpec):
    """Never run to its end: what it asks for does not exist."""

    @conda(libraries={"old": "1"}, packages={"new": None})
    @step
    def start(self):
        """Ask conda."""
        print("started")
        self.next(self.middle)

    @pypi(packages={"six": "1.16.0"}, disabled=True)
    @step
    def middle(self):
        """Ask for nothing."""
        self.next(self.end)

    @step
    def end(self):
        """Ask for nothing."""


if __name__ == "__main__":
    PlainFlow()
