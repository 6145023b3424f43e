"""The errors a user of the benchmarks can cause, one class per kind of mistake."""


class BenchmarkError(Exception):
    """Base of every error that is shown as a message instead of a traceback."""


class DataError(BenchmarkError):
    """A data file is missing, damaged, or does not fit the other files."""


class MethodError(BenchmarkError):
    """A method name is unknown or names a combination that means nothing."""


class ConfigError(BenchmarkError):
    """Options are out of range or contradict each other."""


class OutputError(BenchmarkError):
    """The output folder cannot be written."""
