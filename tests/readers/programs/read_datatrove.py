"""Windows and positions through datatrove's file and folder data sets, and its metadata.

Arguments: FOLDER LENGTH TOKEN_SIZE OUT.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from datatrove.io import get_datafolder
from datatrove.pipeline.tokens.tokenizer import TokenizedFile
from datatrove.utils.dataset import DatatroveFileDataset, DatatroveFolderDataset

folder, length, token_size, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
files = sorted(str(p) for p in Path(folder).glob("*.ds"))
rows, metadata = [], []
for path in files:
    data = DatatroveFileDataset(path, length, token_size, return_positions=True)
    items = (data[i] for i in range(len(data)))
    rows += [{name: item[name].tolist() for name in ("input_ids", "positions")} for item in items]
    tokens = len(data) * (length + 1)
    written = TokenizedFile(get_datafolder(out + ".folder"), "t", token_size=token_size)
    written.write_final_metadata(tokens, "t")
    written.close()
    metadata.append(Path(out + ".folder", "t.metadata").read_text().split("\n")[1:])
whole = DatatroveFolderDataset(folder, length, token_size=token_size)
with open(out, "w") as file:
    folder_rows = [whole[i]["input_ids"].tolist() for i in range(len(whole))]
    found = {"rows": rows, "folder": folder_rows, "metadata": metadata}
    json.dump({"version": version("datatrove"), **found}, file)
