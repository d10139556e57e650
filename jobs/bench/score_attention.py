"""The attention passes against a full forward of the same model: tokens/s, share, memory.

    python -m jobs.bench.score_attention [--lengths 8192,16384,32768] [--model smollm2] [--json]
        [--write]

One window of real text for each length, one thread, each measurement in a process of its own:

- forward: all layers, no logits, in bfloat16 (the default of scoring, and faster than float32);
- layer 0: LongAttn's pass in float32, from ids to both figures;
- all layers: LADM on one window, the same forward with the weights of every fourth span.

CPU seconds on a CPU; on a GPU wall seconds after a first pass, and the TFLOP/s of the products of
layer 0. Memory is the highest resident set (on a GPU: allocated) less what the loaded model holds.
Windows beyond the model's context are read all the same: only their cost counts here.

Exit code 1 when layer 0 is less than 5 times as fast as the forward, or its memory more than
doubles with the length.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.bench.embed import CORPUS, corpus_files, passages
from jobs.bench.machine import describe
from jobs.bench.report import table, write_section

LENGTHS = (8192, 16_384, 32_768)
PASSES = ("forward", "layer 0", "all layers")
LEAST_SPEED, MOST_MEMORY = 5.0, 2.2
_SPAN = 128
_SMALL = 256 << 10  # allocations that a growing heap rounds to


class Cost(NamedTuple):
    """What one pass over one window took: seconds, bytes above the model, TFLOP/s (GPU only)."""

    name: str
    length: int
    seconds: float
    memory: int
    tflops: float | None

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.length / self.seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Attention passes against a full forward.")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--one", help="measure one pass in this process and print it")
    args = parser.parse_args(argv)
    lengths = [int(n) for n in args.lengths.split(",")]
    if args.one:
        print(json.dumps(measure(args.one, args.model, lengths[0], args.corpus)))
        return 0
    costs = [apart(name, args.model, n, args.corpus) for n in lengths for name in PASSES]
    if args.json:
        print(json.dumps({"machine": describe(), "costs": [c._asdict() for c in costs]}, indent=1))
    else:
        print(page(args.model, costs))
    if args.write:
        write_section("Attention of language models", page(args.model, costs))
    return int(not held(costs))


def apart(name: str, model: str, length: int, corpus: Path) -> Cost:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "jobs.bench.score_attention", "--one", name]
    options = ["--model", model, "--lengths", str(length), "--corpus", str(corpus)]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, model: str, length: int, corpus: Path) -> Cost:
    """One pass over one window, in this process."""
    import torch

    run, encode, flops = _pass(name, model, length)
    ids = _ids(encode, length, corpus)
    on_gpu = torch.cuda.is_available()
    run(ids if on_gpu else ids[:512])
    base = _reset()
    start = _clock()
    run(ids)
    seconds = _clock() - start
    memory = max(0, _peak() - base)
    return Cost(name, length, seconds, memory, flops / seconds / 1e12 if on_gpu else None)


def _pass(name: str, model: str, length: int) -> tuple[Any, Any, float]:
    """The pass, the encoder of its model, and the operations of its products (layer 0 only)."""
    import torch

    if name == "layer 0":
        from longctx.score.layer0 import load_layer0

        layer = load_layer0(model)
        width = len(layer.weights["model.layers.0.self_attn.q_proj.weight"])
        return layer.longattn, layer.encode, 2 * width * (length**2 - (length // 4) ** 2) / 2
    from longctx.score.causal_lm import load_causal_lm
    from longctx.score.ladm import ladm_index, ladm_windows

    lm = load_causal_lm(model)

    def forward(ids: npt.NDArray[np.int32]) -> None:
        with torch.inference_mode():
            lm.hidden(torch.from_numpy(ids.astype(np.int64))[None].to(lm.device))

    def ladm(ids: npt.NDArray[np.int32]) -> None:
        # The short window that warms up has too few spans; one of its spans is compared.
        pairs = ladm_index(len(ids) // _SPAN) or {3: np.array([1, 2])}
        ladm_windows(lm, ids[None], _SPAN, pairs)

    return (forward if name == "forward" else ladm), lm.encode, 0.0


def _ids(encode: Any, length: int, corpus: Path) -> npt.NDArray[np.int32]:
    texts = passages(corpus_files(corpus, Path("build")), length // 100)
    found: npt.NDArray[np.int32] = np.concatenate(encode(texts))
    return found[:length]


def _clock() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _reset() -> int:
    """Forget the highest memory so far; bytes in use."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def page(model: str, costs: list[Cost]) -> str:
    """The figures as a Markdown table."""
    forward = {c.length: c for c in costs if c.name == "forward"}
    rows = [
        [
            f"{c.length:,}",
            c.name,
            f"{c.speed:,.0f}",
            f"{c.seconds / forward[c.length].seconds:.3f}",
            f"{c.memory / 1e6:,.0f}",
            "" if c.tflops is None or not c.tflops else f"{c.tflops:.1f}",
        ]
        for c in costs
    ]
    header = ["tokens", "pass", "tokens/s", "time / forward", "memory MB", "TFLOP/s"]
    about = (
        f"{model}, one thread, one window of real text. Forward: bfloat16, no logits. Layer 0: "
        "LongAttn's pass, float32. All layers: LADM. Memory: above the loaded model. Limits: layer "
        f"0 {LEAST_SPEED:g} times as fast as the forward, its memory linear in the length."
    )
    return f"{about}\n\n{table(header, rows)}"


def held(costs: list[Cost]) -> bool:
    """Whether layer 0 is fast enough at every length, and its memory no more than linear."""
    by_pass = {(c.name, c.length): c for c in costs}
    lengths = sorted({c.length for c in costs})
    fast = all(
        by_pass["forward", n].seconds >= LEAST_SPEED * by_pass["layer 0", n].seconds
        for n in lengths
    )
    memory = [by_pass["layer 0", n].memory + _SMALL for n in lengths]
    doubled = np.diff(np.log2(memory)) / np.diff(np.log2(lengths))
    return fast and bool((2**doubled <= MOST_MEMORY).all())


if __name__ == "__main__":
    sys.exit(main())
