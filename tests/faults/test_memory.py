"""Memory with documents far larger than any batch: bounded by the document, in small multiples."""

import json
import subprocess
import sys
from pathlib import Path

MEGABYTE = 1_000_000
DOCUMENT = 40 * MEGABYTE
READS = """
import resource, sys
from longctx.engine.ingest import ReadWork
from longctx.engine.inputs import list_inputs
from longctx.engine.units import Sink
from longctx.recipe import Input

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

(group,) = list_inputs([Input(path=sys.argv[1], source="s")], 64_000_000).groups
before = peak()
sink = Sink(sys.argv[2])
done = ReadWork(64_000_000)(group, sink)
print(done["rows_out"], len(sink.files), peak() - before)
"""


def test_reading_holds_six_times_a_document(tmp_path: Path) -> None:
    """Measured: 5.6 times a document of 200 MB; as much for ten as for one."""
    words = "".join(f"word{i % 9973} and {i}. " for i in range(DOCUMENT // 20))[:DOCUMENT]
    with (tmp_path / "big.jsonl").open("w") as file:
        for _ in range(4):
            file.write(json.dumps({"text": words}) + "\n")
    command = [sys.executable, "-c", READS, str(tmp_path / "big.jsonl"), str(tmp_path / "run")]
    rows, parts, held = map(int, subprocess.check_output(command, text=True).split())
    assert (rows, parts) == (4, 4)
    assert held < 7.5 * DOCUMENT
