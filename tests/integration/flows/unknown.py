"""Asks for what no index has."""

from metaflow import FlowSpec, kubernetes, pypi, step


class UnknownFlow(FlowSpec):
    """Cannot be deployed."""

    @kubernetes
    @pypi(packages={"no-such-package-of-metaflow-prebuilt": "1.0"})
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UnknownFlow()
