"""A flow whose steps have packages of each source: the package index, a conda channel, both."""

import sys

from metaflow import FlowSpec, conda, current, pypi, step


class SourcesFlow(FlowSpec):
    """Each step says where its packages are."""

    @pypi(packages={"six": "1.16.0"})
    @step
    def start(self):
        import six

        self.places = {current.step_name: (sys.prefix, six.__version__)}
        self.next(self.middle)

    @conda(packages={"packaging": ""})
    @step
    def middle(self):
        import packaging

        self.places = {**self.places, current.step_name: (sys.prefix, packaging.__version__)}
        self.next(self.end)

    @conda(packages={"packaging": ""})
    @pypi(packages={"six": "1.16.0"})
    @step
    def end(self):
        import packaging
        import six

        self.places = {**self.places, current.step_name: (sys.prefix, f"{packaging.__version__} {six.__version__}")}


if __name__ == "__main__":
    SourcesFlow()
