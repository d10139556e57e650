"""Packing strategies by name: functions of lengths alone, chosen from a dict.

`concat` fills every window and cuts anywhere; `window` keeps short documents whole. A strategy
takes framed lengths int64[n] and tour numbers int32[n] in tour order, the window length and its own
keyword options, and returns a `Plan`; it never sees a token, so planning costs bytes per document
and tokens move once, when windows are filled.
"""

from collections.abc import Callable

from longctx.pack.concat import pack_concat
from longctx.pack.frame import Plan
from longctx.pack.window import pack_window

STRATEGIES: dict[str, Callable[..., Plan]] = {"concat": pack_concat, "window": pack_window}
