from pathlib import Path

import numpy as np
import pytest

from longctx.errors import RunError
from longctx.io import megatron
from longctx.io.megatron import index_bytes, merged_index, read_index, token_type
from longctx.io.megatron_merge import merge_prefixes
from tests.io.packed import LENGTH, VOCABULARY, packed_windows, two_windows
from tests.io.window_readers import megatron_index, read_megatron
from tests.io.written import EOS, target, write

IDX = (
    "4d4d494449445800000100000000000000{code}02000000000000000300000000000000"
    "08000000080000000000000000000000{second}0000000000000000010000000000000002000000"
    "00000000"
)


def files(windows, to):
    return {f.name: f.data for f in megatron.shard(windows, "00000", to)}


def test_int32_bytes_of_the_specification():
    found = files(two_windows(), target(8, 65_500, 0))
    assert found["part-00000.idx"].hex() == IDX.format(code="04", second="2000000000000000")
    assert len(found["part-00000.idx"]) == 82
    ids = [*range(1, 14), 300, 0, 0]
    assert found["part-00000.bin"] == b"".join(i.to_bytes(4, "little") for i in ids)
    assert len(found["part-00000.bin"]) == 64


def test_uint16_bytes_of_the_specification():
    found = files(two_windows(), target(8, 65_499, 0))
    assert found["part-00000.idx"].hex() == IDX.format(code="08", second="1000000000000000")
    expected = "0100020003000400050006000700080009000a000b000c000d002c0100000000"
    assert found["part-00000.bin"].hex() == expected


@pytest.mark.parametrize("vocabulary", [65_499, VOCABULARY])
def test_another_reader_finds_all_200_windows_padded(tmp_path: Path, vocabulary: int):
    windows = packed_windows(vocabulary)
    write(megatron, tmp_path, windows, target(LENGTH, vocabulary))
    found = read_megatron(tmp_path)
    assert len(found) == 200
    for row, ids in zip(found, windows["input_ids"].to_pylist(), strict=True):
        assert row["input_ids"] == ids + [EOS] * (LENGTH - len(ids))
    assert max(max(row["input_ids"]) for row in found) == vocabulary - 1


def test_prefixes_are_listed_with_their_tokens(tmp_path: Path):
    write(megatron, tmp_path, packed_windows(), target(LENGTH, VOCABULARY))
    words = (tmp_path / "data_args.txt").read_text().split()
    assert words == [str(90 * LENGTH), "part-00000", str(110 * LENGTH), "part-00001"]


def test_the_manifest_tells_padding_and_unmasked_crossings():
    to = target(8, VOCABULARY, eos_id=8)
    notes = [file.note for file in megatron.shard(two_windows(), "00000", to) if file.note]
    assert megatron.describe(notes, to) == {
        "windows": 2,
        "dtype": "int32",
        "sequence_length": 8,
        "eod_id": 8,
        "tokens": 16,
        "padding": 2,
        "unmasked_crossings": 0.0,
    }
    # The first window ends with 8, the second with padding; another EOD leaves the first open.
    notes = [f.note for f in megatron.shard(two_windows(), "0", target(8, 500, 0)) if f.note]
    assert megatron.describe(notes, target(8, 500, 0))["unmasked_crossings"] == 0.5
    assert megatron.describe([], to)["unmasked_crossings"] == 0.0


def test_a_reserved_token_leaves_no_crossing_open():
    to = target(9, 500, 0)
    notes = [file.note for file in megatron.shard(two_windows(), "0", to) if file.note]
    assert megatron.describe(notes, to)["unmasked_crossings"] == 0.0


def test_an_id_outside_the_vocabulary_names_window_position_id_and_limit():
    name = two_windows()["window_id"][1].as_py()
    expected = rf"window {name}, position 5: token id 300 is outside 0\.\.299"
    with pytest.raises(RunError, match=expected):
        list(megatron.shard(two_windows(), "0", target(8, 300)))


def test_an_end_of_document_id_that_does_not_fit_is_refused():
    with pytest.raises(RunError, match="id 65536 does not fit uint16"):
        list(megatron.shard(two_windows(), "0", target(8, 400, eos_id=65_536)))


def test_a_window_longer_than_the_format_is_refused():
    name = two_windows()["window_id"][0].as_py()
    with pytest.raises(RunError, match=f"window {name} holds 8 tokens, more than the 7"):
        list(megatron.shard(two_windows(), "0", target(7, 400)))


def test_the_token_type_is_megatrons_own_choice():
    assert token_type(65_499) == np.uint16
    assert token_type(65_500) == np.int32


def test_an_index_is_read_as_it_was_written():
    lengths, dtype = read_index(index_bytes(np.array([3, 1, 2]), np.dtype("<u2")))
    assert lengths.tolist() == [3, 1, 2]
    assert dtype == np.uint16


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"X" + d[1:], lambda d: b""])
def test_no_other_file_passes_for_an_index(damage):
    with pytest.raises(ValueError, match=r"index"):
        read_index(damage(index_bytes(np.array([3, 1]), np.dtype("<i4"))))


def test_indices_of_two_token_types_cannot_be_merged():
    found = [index_bytes(np.array([3]), np.dtype(kind)) for kind in ("<i4", "<u2")]
    with pytest.raises(ValueError, match="2 token types"):
        merged_index(found)


def test_merged_prefixes_hold_all_windows_in_order(tmp_path: Path):
    windows = packed_windows()
    write(megatron, tmp_path / "megatron", windows, target(LENGTH, VOCABULARY))
    write(megatron, tmp_path / "whole", windows, target(LENGTH, VOCABULARY), cut=200)
    (tmp_path / "merged").mkdir()
    assert merge_prefixes(str(tmp_path / "megatron"), str(tmp_path / "merged" / "all")) == 200
    assert read_megatron(tmp_path / "merged") == read_megatron(tmp_path / "megatron")
    for kind in ("bin", "idx"):
        whole = (tmp_path / "whole" / f"part-00000.{kind}").read_bytes()
        assert (tmp_path / "merged" / f"all.{kind}").read_bytes() == whole


def test_merging_says_what_is_wrong_with_a_folder(tmp_path: Path):
    with pytest.raises(RunError, match=r"no data_args\.txt"):
        merge_prefixes(str(tmp_path), str(tmp_path / "all"))
    write(megatron, tmp_path, two_windows(), target(8, 400), cut=1)
    (tmp_path / "part-00001.idx").unlink()
    with pytest.raises(RunError, match=r"part-00001\.idx.*gone"):
        merge_prefixes(str(tmp_path), str(tmp_path / "all"))
    with pytest.raises(RunError, match="part-00000 is one of the prefixes"):
        merge_prefixes(str(tmp_path), str(tmp_path / "part-00000"))


def sample_index(lengths: list[int], length: int) -> list[tuple[int, int]]:
    """(document, offset) at which each sample of the GPT loader begins, and where the last ends.

    The loader takes length + 1 tokens, the last of which begins the next sample.
    """
    found, document, offset = [(0, 0)], 0, 0
    for _ in range((sum(lengths) - 1) // length):
        left = length
        while left >= lengths[document] - offset:
            left -= lengths[document] - offset
            document, offset = document + 1, 0
        offset += left
        found.append((document, offset))
    return found


def test_the_sample_index_of_the_specification():
    assert sample_index([8] * 5, 8) == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]
    assert sample_index([9] * 5, 8) == [(0, 0), (0, 8), (1, 7), (2, 6), (3, 5), (4, 4)]


def test_every_sample_of_the_loader_is_a_window(tmp_path: Path):
    write(megatron, tmp_path, packed_windows(), target(LENGTH, VOCABULARY), cut=200)
    _, lengths, _, _ = megatron_index(tmp_path / "part-00000.idx")
    # One token beyond the last sample is wanted, so the last window is only its target.
    assert sample_index(lengths, LENGTH) == [(i, 0) for i in range(200)]
    drift = sample_index([LENGTH + 1] * 200, LENGTH)
    assert [offset for _, offset in drift[:4]] == [0, LENGTH, LENGTH - 1, LENGTH - 2]
