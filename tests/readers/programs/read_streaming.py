"""Samples through `StreamingDataset`: FOLDER OUT.

Its data sets of pictures want torchvision, which must match torch; they are not needed here.
"""

import json
import sys
from importlib.metadata import version
from types import ModuleType

sys.modules["streaming.vision"] = ModuleType("streaming.vision")

from streaming import StreamingDataset  # noqa: E402

folder, out = sys.argv[1:]
data = StreamingDataset(local=folder, shuffle=False, batch_size=1)
rows = []
for i in range(len(data)):
    sample = data[i]
    arrays = {name: sample[name].tolist() for name in ("indices", "input_ids")}
    rows.append({**arrays, "domain": sample["domain"], "length": sample["length"]})
with open(out, "w") as file:
    json.dump({"version": version("mosaicml-streaming"), "rows": rows}, file)
