"""Credentials in URLs: which are found, what is shown of them, and what is left alone."""

import pytest

from longctx.credentials import MASK, found_in, masked
from longctx.errors import RecipeError, RunError
from longctx.io import paths

SECRET = {
    "s3://key:se/cr+et@bucket/a@b": f"s3://{MASK}@bucket/a@b",
    "S3://key:@bucket": f"S3://{MASK}@bucket",
    "s3a://key@bucket/x": f"s3a://{MASK}@bucket/x",
    "https://user:12345@host/x": f"https://{MASK}@host/x",
    "https://ghp_token@github.com/x": f"https://{MASK}@github.com/x",
    "sftp://user:word@host/x": f"sftp://{MASK}@host/x",
    "https://h/x?X-Amz-Signature=abc&y=1": f"https://h/x?X-Amz-Signature={MASK}&y=1",
    "https://h/x?y=1&X-Amz-Credential=AKIA%2F1": f"https://h/x?y=1&X-Amz-Credential={MASK}",
    "https://h/x?sv=1&sig=a%2Bb": f"https://h/x?sv=1&sig={MASK}",
    "https://h/x?X-Goog-Signature=ab": f"https://h/x?X-Goog-Signature={MASK}",
    "https://h/x?token=ab#part": f"https://h/x?token={MASK}#part",
}
PLAIN = [
    "s3://bucket/a@b",
    "s3://bucket/folder:1/a@b",
    "http://127.0.0.1:8333/a@b",
    "http://host:8080",
    "abfs://container@account.dfs.core.windows.net/x",
    "sftp://user@host/x",
    "hf://datasets/org/name@main/x.parquet",
    "/data/a@b:c",
    "https://h/x?page=1&design=2",
    "see http://host: it failed, ask admin@host",
]


@pytest.mark.parametrize("url", SECRET)
def test_found_and_masked(url: str) -> None:
    assert found_in(url) is not None
    assert masked(url) == SECRET[url]
    assert masked(masked(url)) == masked(url)
    assert (
        masked(f"cannot read '{url}', or {url}") == f"cannot read '{SECRET[url]}', or {SECRET[url]}"
    )


@pytest.mark.parametrize("text", PLAIN)
def test_the_rest_is_left_alone(text: str) -> None:
    assert found_in(text) is None
    assert masked(text) == text


def test_errors_are_masked_when_they_are_made() -> None:
    error = RunError("no answer from https://u:hunter2@h/", where="s3://k:hunter2@b", remedy="-")
    assert "hunter2" not in f"{error}{error!r}{error.message}{error.where}{error.args}"


def test_no_file_system_is_opened_for_such_a_url() -> None:
    with pytest.raises(RecipeError, match="the URL holds a user name or password") as caught:
        paths.read_if_exists("s3://key:hunter2@bucket/run.json")
    assert "hunter2" not in str(caught.value)
