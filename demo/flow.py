"""What the demo deploys: three steps, two of which want the same packages."""

from metaflow import FlowSpec, conda, pypi, step


class PrebuiltDemo(FlowSpec):
    """Each step says where its packages are."""

    @pypi(packages={"tabulate": "0.9.0"})
    @step
    def start(self):
        import sys

        import tabulate

        print(f"tabulate {tabulate.__version__} in {sys.prefix}")
        self.numbers = list(range(1, 7))
        self.next(self.measure)

    @conda(packages={"numpy": ">=2"})
    @step
    def measure(self):
        import sys

        import numpy as np

        print(f"numpy {np.__version__} in {sys.prefix}")
        self.mean = float(np.mean(self.numbers))
        self.next(self.end)

    @pypi(packages={"tabulate": "0.9.0"})
    @step
    def end(self):
        from tabulate import tabulate

        print(tabulate([("numbers", self.numbers), ("mean", self.mean)]))


if __name__ == "__main__":
    PrebuiltDemo()
