"""What TRL takes pairs for, and their prompts, chosen and rejected texts: PATTERN OUT."""

import json
import sys
from importlib.metadata import version

import datasets
from trl.data_utils import extract_prompt, is_conversational

pattern, out = sys.argv[1:]
rows = list(datasets.load_dataset("json", data_files=pattern, split="train"))
turns = [is_conversational(row) for row in rows]
# Pairs whose sides hold their prompt, as TRL takes them too, are parted at the same place.
joined = [{n: row["prompt"] + row[n] for n in ("chosen", "rejected")} for row in rows]
parted = [extract_prompt(row) for row in joined]
with open(out, "w") as file:
    json.dump({"version": version("trl"), "conversational": turns, "parted": parted}, file)
