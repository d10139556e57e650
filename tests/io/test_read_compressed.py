"""Reading gzip and zstd: several frames, cut and damaged streams, and what was read before."""

import gzip
from collections.abc import Callable

import pytest
import zstandard

from longctx.io.read import Bad
from tests.io.reading import bad, items, lines, reasons, rows

Pack = Callable[[bytes], bytes]
PACKERS: dict[str, Pack] = {
    "gz": gzip.compress,
    # As the command line tool writes it; without a checksum damage can go unseen.
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("ending", PACKERS)
class TestCompressed:
    def records(self, count: int = 20_000) -> bytes:
        # Numbers that do not repeat: the stream must have several blocks of 128 KiB.
        return lines(*({"text": f"{i * 2654435761 % 2**32:x} {i}"} for i in range(count)))

    def test_is_read_like_the_plain_file(self, ending: str) -> None:
        data = self.records()
        packed = items(PACKERS[ending](data), f"a.jsonl.{ending}")
        assert [r.text for r in rows(packed)] == [r.text for r in rows(items(data))]
        assert bad(packed) == []

    def test_ending_in_capitals(self, ending: str) -> None:
        data = PACKERS[ending](self.records(2))
        assert len(rows(items(data, f"A.JSONL.{ending.upper()}"))) == 2

    def test_several_frames(self, ending: str) -> None:
        pack = PACKERS[ending]
        data = pack(lines({"text": "a"})) + pack(b"") + pack(lines({"text": "b"}, {"text": "c"}))
        assert [r.text for r in rows(items(data, f"a.jsonl.{ending}"))] == ["a", "b", "c"]

    @pytest.mark.parametrize("share", [0.0001, 0.5, 0.9, 0.9999])
    def test_cut_stream_keeps_what_came_before(self, ending: str, share: float) -> None:
        plain = self.records()
        whole = PACKERS[ending](plain)
        found = items(whole[: max(int(len(whole) * share), 6)], f"a.jsonl.{ending}")
        (broken,) = bad(found)
        assert broken.reason == "broken_stream"
        assert isinstance(found[-1], Bad)
        read_rows = [r.text for r in rows(found)]
        assert read_rows == [r.text for r in rows(items(plain))][: len(read_rows)]
        if share >= 0.5:
            assert len(read_rows) > 5000

    def test_cut_in_the_second_frame(self, ending: str) -> None:
        pack = PACKERS[ending]
        data = pack(lines({"text": "a"})) + pack(self.records())[:-9]
        found = items(data, f"a.jsonl.{ending}")
        assert rows(found)[0].text == "a"
        assert reasons(found) == ["broken_stream"]

    def test_damage_in_the_middle(self, ending: str) -> None:
        data = bytearray(PACKERS[ending](self.records()))
        middle = len(data) // 2
        data[middle : middle + 64] = b"\xff" * 64
        found = items(bytes(data), f"a.jsonl.{ending}")
        assert reasons(found)[-1] == "broken_stream"

    def test_damage_of_the_first_block(self, ending: str) -> None:
        data = bytearray(PACKERS[ending](self.records()))
        data[12:40] = b"\xff" * 28
        assert reasons(items(bytes(data), f"a.jsonl.{ending}")) == ["broken_stream"]

    def test_garbage_after_the_end(self, ending: str) -> None:
        found = items(PACKERS[ending](lines({"text": "a"})) + b"garbage", f"a.jsonl.{ending}")
        assert [r.text for r in rows(found)] == ["a"]
        assert reasons(found) == ["broken_stream"]

    def test_not_compressed_at_all(self, ending: str) -> None:
        assert reasons(items(lines({"text": "a"}), f"a.jsonl.{ending}")) == ["broken_stream"]

    def test_empty_file(self, ending: str) -> None:
        assert items(b"", f"a.jsonl.{ending}") == []

    def test_text_file(self, ending: str) -> None:
        pack = PACKERS[ending]
        assert rows(items(pack(b"one\ntwo"), f"a.txt.{ending}"))[0].text == "one\ntwo"
        cut = items(pack(self.records())[:-20], f"a.txt.{ending}")
        assert (len(cut), reasons(cut)) == (1, ["broken_stream"])


def test_zstd_with_skippable_frames_and_a_long_window() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    window = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    long = zstandard.ZstdCompressor(compression_params=window)
    stream = long.compressobj()
    packed = stream.compress(lines({"text": "a"})) + stream.flush()
    data = skippable + packed + skippable + packed
    found = items(data, "a.jsonl.zst")
    assert [r.text for r in rows(found)] == ["a", "a"]
    assert bad(found) == []
