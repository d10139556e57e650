"""The main job from S3 to S3 on a real server: what goes wrong, and what a resume makes of it.

The command runs as a user runs it, in a process of its own with a Ray of its own.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longctx import run
from tests.conftest import make_recipe, make_rows, output_bytes, write_corpus
from tests.servers import Command, Ended, S3Server, run_command, s3_server

pytestmark = pytest.mark.s3
RUN, OUTPUT = "work/runs/small", "out/packed"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("small"), make_rows(40))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        store = running.client()
        for bucket in ("raw", "work", "out"):
            store.mkdir(bucket)
        for file in small.iterdir():
            store.pipe_file(f"raw/small/{file.name}", file.read_bytes())
        yield running


def on_s3(folder: str = "raw/small", run_dir: str = RUN, output: str = OUTPUT) -> dict[str, Any]:
    """The main job with input, run folder and output on S3."""
    recipe = make_recipe(f"s3://{folder}", f"s3://{run_dir}")
    return {**recipe, "output": {"path": f"s3://{output}", **recipe["output"]}}


def assert_clear(ended: Ended, *words: str) -> None:
    """Exit code 1, one message with a remedy, and nothing that only Python or Ray understand."""
    assert ended.code == 1, ended.said
    assert ended.said.count("longctx: the run failed") == 1
    assert "remedy:" in ended.said
    for word in words:
        assert word in ended.said
    assert not re.search(
        r"Traceback|ray::|raylet|core_worker|logging.cc|File \"|Warning", ended.said
    ), ended.said


def test_wrong_credentials(server: S3Server, tmp_path: Path) -> None:
    ended = run_command(on_s3(), tmp_path, env=server.environment(secret="not-the-secret"))
    assert_clear(ended, "s3://raw/small", "access denied", "AWS_SECRET_ACCESS_KEY")


def test_no_credentials(server: S3Server, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), **server.environment()}
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    ended = run_command(on_s3(), tmp_path, env=environment)
    assert_clear(ended, "s3://raw/small", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    "recipe",
    [
        on_s3(folder="nowhere", run_dir="work/runs/no-input"),
        on_s3(run_dir="nowhere/run"),
        on_s3(run_dir="work/runs/no-output", output="nowhere/packed"),
    ],
    ids=["input", "run_dir", "output"],
)
def test_missing_bucket(server: S3Server, tmp_path: Path, recipe: dict[str, Any]) -> None:
    ended = run_command(recipe, tmp_path, env=server.environment())
    assert_clear(ended, "there is no such bucket", "s3://nowhere/", "create the bucket")


def test_server_that_is_not_there(server: S3Server, tmp_path: Path) -> None:
    environment = {**server.environment(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = run_command(on_s3(), tmp_path, env=environment)
    assert_clear(ended, "s3://raw/small", "did not answer", "AWS_ENDPOINT_URL")


def test_server_killed_in_the_middle(
    ray_local: int, server: S3Server, small: Path, tmp_path: Path
) -> None:
    store = server.client()
    commits = f"{RUN}/stages/04-dedup.minhash/signatures"

    def reached() -> bool:
        return store.exists(commits) and any(
            name.endswith(".commit.json") for name in store.ls(commits, detail=False)
        )

    with Command(on_s3(), tmp_path, env=server.environment()) as command:
        command.wait_for(reached, "the first signatures")
        server.kill()
        assert_clear(command.end(), "s3://work/", "did not answer", "finished parts are kept")
    server.start()
    again = run_command(on_s3(), tmp_path, env=server.environment())
    assert again.code == 0, again.said

    store = server.client()
    local = run(make_recipe(small, tmp_path / "local"))
    record = read_json(store, f"{RUN}/run.json")
    for stage in record["stages"][:4]:
        assert stage["skipped"] == stage["units"], stage["stage"]
    stored = {
        name.removeprefix(f"{OUTPUT}/"): store.cat_file(name)
        for name in store.find(OUTPUT)
        if not name.endswith("_longctx.json")
    }
    expected = output_bytes(local.run_dir)
    # The manifest names the recipe, and the inputs of that one lie elsewhere.
    del stored["manifest.json"], expected["manifest.json"]
    assert stored == expected
    assert b"<html" in store.cat_file(f"{RUN}/report.html")
    here = Path(local.run_dir, "report", "01-score.heuristics.html")
    assert store.cat_file(f"{RUN}/report/{here.name}") == here.read_bytes()


def read_json(store: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.cat_file(name))
    return found
