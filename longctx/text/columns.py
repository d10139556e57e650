"""Token ids as an Arrow column: tokenised once, read by every later stage that needs them."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from longctx.text.tokenize import Tokenizer

TOKENS = pa.large_list(pa.int32())


def token_columns(tokenizer: Tokenizer, texts: Iterable[str]) -> pa.Table:
    """Columns `tokens` (large_list<int32>) and `n_tokens` (int64), one row for each text.

    Texts are taken one by one; the ids of one text alone are not copied.
    """
    ids = tokenizer.encode_batch(texts)
    sizes = np.fromiter((len(i) for i in ids), dtype=np.int64, count=len(ids))
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    values = ids[0] if len(ids) == 1 else np.concatenate([np.zeros(0, dtype=np.int32), *ids])
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int32()))
    return pa.table({"tokens": tokens, "n_tokens": sizes})
