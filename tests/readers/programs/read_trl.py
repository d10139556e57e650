"""Batches of four rows through TRL's collator without padding: PATTERN OUT."""

import json
import sys
from importlib.metadata import version

import datasets
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

pattern, out = sys.argv[1:]
rows = list(datasets.load_dataset("parquet", data_files=pattern, split="train"))
collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
batches = []
for start in range(0, len(rows), 4):
    batch = collator(rows[start : start + 4])
    names = ("input_ids", "labels", "position_ids", "cu_seq_lens_q")
    found = {name: batch[name].reshape(-1).tolist() for name in names}
    batches.append({**found, "max_length_q": batch["max_length_q"]})
with open(out, "w") as file:
    json.dump({"version": version("trl"), "batches": batches}, file)
