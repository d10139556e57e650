"""Uploads in pieces that a killed writer left unfinished: invisible in listings, but paid for."""

import contextlib
from functools import partial
from typing import Any

from longctx.errors import RunError
from longctx.io.paths import filesystem
from longctx.io.store_errors import persistently


def abort_uploads(folder: str) -> int:
    """Abort the unfinished uploads below a folder of an S3 store; returns how many there were.

    Only for whoever holds the folder and writes nothing in it at this moment: all that is found is
    then left over. Where the store refuses to tell, they stay; its own rules may remove them later.
    """
    if not folder.startswith(("s3://", "s3a://")):
        return 0
    fs, path = filesystem(folder)
    bucket, key, _ = fs.split_path(path)
    aborted = 0
    # FileNotFoundError: somebody else aborted it, or there is no bucket, which a write will tell.
    with contextlib.suppress(RunError, FileNotFoundError):
        for upload in _unfinished(fs, folder, bucket, f"{key}/" if key else ""):
            place = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            persistently(folder, partial(fs.call_s3, "abort_multipart_upload", **place))
            aborted += 1
    return aborted


def _unfinished(fs: Any, folder: str, bucket: str, prefix: str) -> list[dict[str, str]]:
    """Key and UploadId of every unfinished upload below a prefix."""
    found: list[dict[str, str]] = []
    after: dict[str, str] = {}
    while True:
        where = {"Bucket": bucket, "Prefix": prefix, **after}
        page = persistently(folder, partial(fs.call_s3, "list_multipart_uploads", **where))
        found += page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return found
        after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
