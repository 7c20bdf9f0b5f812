"""What flows do every day on a cluster: a parameter, a foreach whose tasks fail at first, a join, two environments."""

from metaflow import FlowSpec, Parameter, current, pypi, pypi_base, retry, step
from surroundings import show


@pypi_base(packages={"six": "1.16.0"})
class RoundsFlow(FlowSpec):
    """Each step shows where it runs."""

    word = Parameter("word", default="plain")

    @step
    def start(self):
        import six

        show(word=self.word, version=six.__version__)
        self.numbers = [1, 2]
        self.next(self.square, foreach="numbers")

    @retry(times=1, minutes_between_retries=0)
    @pypi(packages={"markupsafe": "3.0.2"})
    @step
    def square(self):
        import markupsafe

        show(attempt=current.retry_count, version=markupsafe.__version__)
        if self.input == 2 and current.retry_count == 0:
            raise RuntimeError("the first attempt fails")
        self.result = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = sorted(each.result for each in inputs)
        show(results=self.results)
        self.next(self.end)

    @step
    def end(self):
        show(results=self.results)


if __name__ == "__main__":
    RoundsFlow()
