"""What flows do every day: parameters, a foreach, a join, artifacts, resources, variables."""

import os
import sys

from metaflow import FlowSpec, Parameter, current, environment, pypi_base, resources, step


@pypi_base(packages={"six": "1.16.0"})
class EverydayFlow(FlowSpec):
    """Each step says where it ran."""

    word = Parameter("word", default="a b")

    def note_place(self):
        import six

        self.place = (sys.executable, six.__version__, os.environ.get("METAFLOW_PREBUILT_IMAGE"))

    @environment(vars={"COLOUR": "dark green"})
    @step
    def start(self):
        self.note_place()
        self.colour = os.environ["COLOUR"]
        print(f"word: {self.word}")
        print("a line of stderr", file=sys.stderr)
        self.numbers = [1, 2, 3]
        self.next(self.square, foreach="numbers")

    @resources(cpu=1, memory=900)
    @step
    def square(self):
        self.note_place()
        self.result = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.note_place()
        self.results = sorted(each.result for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        self.note_place()
        print(f"run {current.run_id}: {self.results} by {sys.executable}")


if __name__ == "__main__":
    EverydayFlow()
