"""Sequences of every prefix, and samples of the GPT data set over all of them.

Arguments: FOLDER LENGTH VOCABULARY EOD OUT. Works in FOLDER, as `data_args.txt` expects.
"""

import json
import os
import sys
from importlib.metadata import version
from types import SimpleNamespace

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset
from megatron.core.datasets.utils import get_blend_from_list

folder, length, vocabulary, eod, out = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
os.chdir(folder)
with open("data_args.txt") as file:
    blend = get_blend_from_list(file.read().split())
prefixes, weights = blend
rows, dtypes = [], set()
for prefix in prefixes:
    data = IndexedDataset(prefix)
    dtypes.add(data.index.dtype.__name__)
    rows += [data[i].tolist() for i in range(len(data))]
assert dtypes == {DType.optimal_dtype(vocabulary).__name__}

tokenizer = SimpleNamespace(
    vocab_size=vocabulary, eod=eod, pad=-1, unique_identifiers={"name": "t"}
)
config = GPTDatasetConfig(
    random_seed=1,
    sequence_length=length,
    blend=(prefixes[:1], None),
    split="1,0,0",
    path_to_cache=os.path.join(os.path.dirname(out), "cache"),
    tokenizer=tokenizer,
    reset_position_ids=True,
    reset_attention_mask=True,
    eod_mask_loss=True,
    create_attention_mask=False,
    mid_level_dataset_surplus=0.005,
)
builder = BlendedMegatronDatasetBuilder(GPTDataset, [None, None, None], lambda: True, config)
train = builder.build()[0]
samples = []
for i in range(len(train)):
    sample = train[i]
    samples.append(
        {n: sample[n].tolist() for n in ("tokens", "labels", "loss_mask", "position_ids")}
    )
index = {
    "documents": train.document_index.tolist(),
    "samples": train.sample_index.tolist(),
    "shuffle": train.shuffle_index.tolist(),
}
with open(out, "w") as file:
    found = {"rows": rows, "weights": weights, "gpt": samples, "index": index}
    json.dump({"version": version("megatron-core"), **found}, file)
