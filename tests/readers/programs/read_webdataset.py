"""Samples of all tars through `webdataset`: PATTERN OUT, the pattern with braces."""

import json
import sys
from importlib.metadata import version

import webdataset

pattern, out = sys.argv[1:]
rows = []
for sample in webdataset.WebDataset(pattern, shardshuffle=False).decode():
    arrays = {n: sample[f"{n}.npy"].tolist() for n in ("input_ids", "seq_lengths")}
    kinds = [str(sample[f"{n}.npy"].dtype) for n in ("input_ids", "seq_lengths")]
    rows.append({**arrays, "kinds": kinds, "json": sample["json"]})
with open(out, "w") as file:
    json.dump({"version": version("webdataset"), "rows": rows}, file)
