"""The program's errors as exceptions: one class for each code, which is also one of
Python's own classes where that fits."""


class Error(Exception):
    """Any error of pennyweight: one line that says what is wrong and what to do.

    `code` is the program's name for this kind of error.
    """

    code = "internal"


class InvalidArgument(Error, ValueError):
    """What was asked for makes no sense."""

    code = "invalid_argument"


class NotFound(Error, FileNotFoundError):
    """A file, tensor, repository or revision does not exist."""

    code = "not_found"


class Corrupt(Error, ValueError):
    """Input breaks its own format."""

    code = "corrupt"


class System(Error, OSError):
    """The system refused: disk, memory, network or permission."""

    code = "io"


class NotSupported(Error, NotImplementedError):
    """It makes sense, and can't be done here."""

    code = "not_supported"


class Numeric(Error, ArithmeticError):
    """Numbers are not finite or otherwise of no use."""

    code = "numeric"


class Cancelled(Error):
    """The progress callback returned False."""

    code = "cancelled"


class Internal(Error, RuntimeError):
    """A bug in pennyweight."""


class Warning(UserWarning):  # noqa: A001  as pennyweight.Warning
    """Something was skipped, clamped or fell back; the report holds it, too."""


CLASSES: dict[str, type[Error]] = {
    own.code: own
    for own in (InvalidArgument, NotFound, Corrupt, System, NotSupported, Numeric,
                Cancelled, Internal)}


def of(code: str, line: str) -> Error:
    """The exception for an error of the program."""
    return CLASSES.get(code, Internal)(line)
