"""What a GPU reaches with the packaged transformer, and how many CPU cores keep it busy."""

import time
from typing import Any

PEAKS = {  # dense bf16 FLOP/s, from the vendors' data sheets, by a part of the device's name
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}
NONE = "no GPU on this machine"
# A card needs more passages than a core, or its start is all that is measured.
_TIMES = 20


def on_gpu(texts: list[str]) -> str:
    """Markdown lines with the figures, or that there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return NONE
    return "\n".join(f"- {name}: {value}" for name, value in _figures(texts * _TIMES).items())


def _figures(texts: list[str]) -> dict[str, str]:
    import torch

    from longctx.embed.encoders import load_encoder

    name = torch.cuda.get_device_name()
    peak = peak_of(name)
    encoder: Any = load_encoder("minilm", device="cuda", dtype="bfloat16", max_chunks=1)
    encoder.encode(texts[: len(texts) // _TIMES])  # kernels are chosen and memory is reserved
    started = time.process_time()
    chunks = list(encoder.chunks(texts))
    tokenising = time.process_time() - started
    batches = list(encoder.reader.batches(chunks))
    config = encoder.reader.model[0].auto_model.config
    flops = sum(
        forward_flops(
            *batch.features["input_ids"].shape,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
        )
        for batch in batches
    )
    alone = _seconds(lambda: _forward(encoder.reader, batches))
    whole = _seconds(lambda: encoder.encode(texts))
    tokens = sum(len(chunk.ids) for chunk in chunks)
    return {
        "device": name,
        "tokens a second, forward passes alone": f"{tokens / alone:,.0f}",
        "tokens a second, tokenising overlapped, one core": f"{tokens / whole:,.0f}",
        "tokens a CPU second of tokenising and cutting": f"{tokens / tokenising:,.0f}",
        "cores that keep the device busy": f"{tokenising / alone:.1f}",
        "share of the dense bf16 peak, forward passes alone": share(flops / alone, peak),
        "share of the dense bf16 peak, with one core": share(flops / whole, peak),
    }


def peak_of(device: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name; None for one that is not listed."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def share(rate: float, peak: float | None) -> str:
    """A rate in FLOP/s as a share of the peak, or the rate where the peak is not known."""
    return f"{rate / 1e12:.1f} TFLOP/s" if peak is None else f"{rate / peak:.1%}"


def forward_flops(rows: int, width: int, *, layers: int, hidden: int, inner: int) -> int:
    """Multiply-adds (each 2 FLOP) of a transformer encoder on a padded batch of `rows` x `width`.

    Four projections and two of the inner layer per token, and two products of attention, which grow
    with the width; embeddings, norms and the softmax are left out.
    """
    dense = 4 * hidden * hidden + 2 * hidden * inner
    attention = 2 * width * hidden
    return 2 * rows * width * layers * (dense + attention)


def _forward(reader: Any, batches: list[Any]) -> None:
    import torch

    with torch.inference_mode():
        for batch in batches:
            reader.forward(batch)


def _seconds(work: Any) -> float:
    import torch

    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
