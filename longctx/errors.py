"""The two ways a command can end badly, each with what the user needs to put it right.

`RecipeError` ends with exit code 2 (the recipe or the arguments are wrong), `RunError` with 1 (the
run failed). Neither is ever shown with a traceback. Credentials in URLs are masked when an error
is made: libraries quote URLs in what they raise, and errors are printed, recorded and passed on.
"""

from functools import partial

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


class DamagedFileError(RunError):
    """A committed file is not what was written, or gone. The run makes it again where it can.

    `file` is its URL, which stays when `where` tells more than the file.
    """

    def __init__(self, reason: str, *, file: str, where: str = "") -> None:
        super().__init__(
            f"a committed file is damaged or gone ({reason})",
            where=where or file,
            remedy="check the disk or the store that holds it, then run again with --verify: what "
            "damaged files held is computed again",
        )
        self.reason, self.file = reason, file

    def __reduce__(self) -> tuple[object, ...]:
        return partial(DamagedFileError, file=self.file, where=self.where), (self.reason,)


def _rebuild(kind: type[LongctxError], message: str, where: str, remedy: str) -> LongctxError:
    return kind(message, where=where, remedy=remedy)
