"""The two ways a command can end badly, each with what the user needs to put it right.

`RecipeError` ends with exit code 2 (the recipe or the arguments are wrong), `RunError` with 1 (the
run failed). Neither is ever shown with a traceback. Credentials in URLs are masked when an error
is made: libraries quote URLs in what they raise, and errors are printed, recorded and passed on.
"""

from longctx.credentials import masked


class LongctxError(Exception):
    """Base of the errors that are written for the user and shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message, self.where, self.remedy = masked(message), masked(where), masked(remedy)
        super().__init__(self.message, self.where, self.remedy)

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.where, self.remedy)


class RecipeError(LongctxError):
    """The recipe or the command line is wrong: file, line, field, expected, got, nearest name."""

    exit_code = 2


class RunError(LongctxError):
    """The run failed: stage, part, cause and what to do."""


def _rebuild(kind: type[LongctxError], message: str, where: str, remedy: str) -> LongctxError:
    return kind(message, where=where, remedy=remedy)
