"""Steps for nodes of every kind. Only what is deployed of it is looked at: the test's cluster has one node."""

from metaflow import FlowSpec, kubernetes, pypi_base, step


@pypi_base(packages={"markupsafe": "3.0.2"})  # which has a wheel for each architecture
class FleetFlow(FlowSpec):
    """One environment, three kinds of nodes."""

    @kubernetes
    @step
    def start(self):
        self.next(self.arm)

    @kubernetes(node_selector={"kubernetes.io/arch": "arm64"})
    @step
    def arm(self):
        self.next(self.train)

    @kubernetes(gpu=1)
    @step
    def train(self):
        self.next(self.end)

    @kubernetes
    @step
    def end(self):
        pass


if __name__ == "__main__":
    FleetFlow()
