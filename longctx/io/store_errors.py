"""What goes wrong in storage: tried again where that may help, told in one message where not.

Drivers answer in their own ways: `OSError`s with or without a number, exceptions of botocore or
aiohttp that are none. Requests that failed are already sent again by botocore (five attempts, or
AWS_MAX_ATTEMPTS) and by s3fs; what still arrives here is an answer that broke off while it was
read, or a store that was away for longer.
"""

import contextlib
import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec

from longctx.errors import RunError

T = TypeVar("T")
# Seconds before each further attempt, half of it at random: workers must not come back together.
_PAUSES = (1.0, 4.0)
_PASSING = {
    errno.EBUSY,
    errno.EREMOTEIO,
    errno.EIO,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
}
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412")
_DRIVERS = ("botocore", "aiohttp", "aiobotocore", "s3fs")
_LASTING = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError")


def is_local(url: str) -> bool:
    """Whether a URL names a file of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def options(protocol: str) -> dict[str, Any]:
    """What the fsspec file system of a protocol is made with; listings are never cached."""
    if protocol not in ("s3", "s3a"):
        return {"use_listings_cache": False}
    options: dict[str, Any] = {"use_listings_cache": False}
    # s3fs reads AWS_ENDPOINT_URL only through newer botocore profiles; passing it is unambiguous.
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_url"] = endpoint
    return options


def persistently(url: str, act: Callable[[], T]) -> T:
    """Do something that may be done twice, again if what went wrong in a store may pass.

    Raises what `clear_errors` makes of the last failure.
    """
    with clear_errors(url):
        for pause in () if is_local(url) else _PAUSES:
            try:
                return act()
            except Exception as error:
                if not _may_pass(error):
                    raise
                time.sleep(pause * random.uniform(0.5, 1))
        return act()


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return type(error).__module__.startswith(_DRIVERS) and type(error).__name__ not in _LASTING


def is_taken(error: OSError) -> bool:
    """Whether a store refused to create an object because there is one, or one is being created.

    Stores that do not say which condition failed get another exception from s3fs than AWS does.
    """
    answer = getattr(error.__cause__, "response", None) or {}
    code = answer.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in _TAKEN


@contextlib.contextmanager
def clear_errors(url: str) -> Iterator[None]:
    """Turn what storage libraries raise into one error that says what to do.

    A file that is not there stays FileNotFoundError: for many callers that is an answer.
    """
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" in str(error).lower() and not is_local(url):
            raise no_bucket(url) from error
        raise
    except RunError:
        raise
    except PermissionError as error:
        # A store may refuse to write into a bucket instead of saying that there is none.
        if lacks_bucket(url):
            raise no_bucket(url) from error
        raise _refused(error, url) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(
            f"a file stands where a folder is needed ({error.filename or error})",
            where=url,
            remedy="choose another path, or remove that file",
        ) from error
    except ImportError as error:
        raise RunError(
            f"no driver for this kind of URL ({error})",
            where=url,
            remedy="install the fsspec driver it names, e.g. pip install gcsfs",
        ) from error
    except Exception as error:
        if (text := _storage_error(error, url)) is None:
            raise
        nobody = type(error).__name__ == "NoCredentialsError"
        remedy = _access_remedy(url) if nobody else _storage_remedy(url)
        raise RunError(text, where=url, remedy=remedy) from error


def _refused(error: PermissionError, url: str) -> RunError:
    if is_local(url):
        return RunError("access denied", where=url, remedy=_access_remedy(url))
    if "expired" in str(error).lower():
        return RunError(
            "the credentials have expired",
            where=url,
            remedy="renew them, then run again: finished parts are kept",
        )
    said = str(error)[:200]
    return RunError(f"access denied ({said})", where=url, remedy=_access_remedy(url))


def no_bucket(url: str) -> RunError:
    """The error for a URL whose bucket does not exist."""
    return RunError(
        "there is no such bucket", where=url, remedy="create the bucket or correct the URL"
    )


def lacks_bucket(url: str) -> bool:
    """Whether the store says plainly that it has no such bucket."""
    if is_local(url):
        return False
    protocol, _, rest = url.partition("://")
    try:
        fsspec.filesystem(protocol, **options(protocol)).info(rest.partition("/")[0])
    except FileNotFoundError:
        return True
    except Exception:
        # Only a clear answer counts; the refusal that led here is what will be told.
        return False
    return False


def _access_remedy(url: str) -> str:
    if is_local(url):
        return "check the owner and mode of the file and its folder"
    return (
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy; temporary "
        "credentials may have expired"
    )


def _storage_remedy(url: str) -> str:
    what = (
        "the disk (free space, quota, mount)"
        if is_local(url)
        else "AWS_ENDPOINT_URL, the network and the credentials (temporary ones may have expired)"
    )
    return f"check {what}, then run again: finished parts are kept"


def _storage_error(error: Exception, url: str) -> str | None:
    """A one-line description if the exception comes from storage, else None."""
    name, module = type(error).__name__, type(error).__module__
    if name == "NoCredentialsError":
        return "no credentials were found"
    if isinstance(error, IsADirectoryError):
        return "this is a folder, a file is needed"
    if isinstance(error, OSError) and module == "builtins":
        said = f"{error.strerror or error}"[:200]
        return said if is_local(url) else f"the object store failed ({said})"
    if module.startswith(_DRIVERS):
        return f"the object store did not answer ({name}: {str(error)[:200]})"
    return None
