"""One Megatron prefix from the many that a run wrote.

    python jobs/merge_megatron.py OUTPUT/megatron PREFIX

Copies the `.bin` files end to end into PREFIX.bin and writes PREFIX.idx. One process, bounded
memory; both may be URLs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from longctx.arguments import tell
from longctx.errors import LongctxError
from longctx.io.megatron_merge import merge_prefixes


def main(arguments: list[str]) -> int:
    """Merge; 0 done, 1 a file is missing or damaged, 2 wrong arguments."""
    if len(arguments) != 2:
        print("usage: python jobs/merge_megatron.py OUTPUT/megatron PREFIX", file=sys.stderr)
        return 2
    folder, prefix = arguments
    try:
        windows = merge_prefixes(folder, prefix)
    except LongctxError as error:
        tell(str(error))
        return error.exit_code
    print(f"{prefix}.bin and {prefix}.idx hold {windows:,} windows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
