"""The model in this process: tiny random ones for what must hold, the packaged one for sense."""

import asyncio
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longctx.errors import RunError
from longctx.llm.keys import canonical_key
from longctx.llm.local import LocalBackend
from longctx.llm.local_model import LocalSettings
from longctx.llm.types import Answer, AttemptError, GenRequest, LLMJobError
from tests.score.models import needs_smollm2, tiny_model

CHATML = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no such role') }}{% endif %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def ask(text: str = "hi", max_tokens: int = 8, **changes: Any) -> GenRequest:
    messages = changes.pop("messages", [{"role": "user", "content": text}])
    return GenRequest(request_id="r", messages=messages, max_tokens=max_tokens, **changes)


def answers(backend: LocalBackend, reqs: Sequence[GenRequest]) -> list[Answer | BaseException]:
    """Replies to requests that are all there at once."""

    async def together() -> list[Answer | BaseException]:
        work = (backend.attempt(req, canonical_key(req, backend.model_id)) for req in reqs)
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(together())


def texts(backend: LocalBackend, reqs: Sequence[GenRequest]) -> list[str]:
    found = answers(backend, reqs)
    assert all(isinstance(a, Answer) for a in found), found
    return [a.text for a in found if isinstance(a, Answer)]


def closed(backend: LocalBackend) -> None:
    asyncio.run(backend.aclose())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny(folder: Path) -> Any:
    backend = LocalBackend(LocalSettings(model=str(folder)))
    yield backend
    closed(backend)


MIXED = [
    ask("a", 20),
    ask("a longer prompt than the others, by far", 9),
    ask("drawn", 16, temperature=1.0, seed=1),
    ask("drawn", 16, temperature=1.0, seed=2),
    ask("drawn", 16, temperature=1.0),
    ask("nucleus", 12, temperature=0.7, top_p=0.9, seed=1, extra={"top_k": 40, "min_p": 0.01}),
    ask("penalised", 12, extra={"repetition_penalty": 1.5}),
]


def test_a_reply_does_not_depend_on_its_batch(folder: Path) -> None:
    alone = LocalBackend(LocalSettings(model=str(folder), batch=1))
    expected = [texts(alone, [req])[0] for req in MIXED]
    assert len(set(expected)) == len(MIXED)
    for settings in ({"batch": 3}, {"batch": 16}, {"batch": 16, "batch_tokens": 90}):
        together = LocalBackend(LocalSettings(model=str(folder), **settings))
        assert texts(together, MIXED) == expected
        assert texts(together, MIXED[::-1]) == expected[::-1]
        assert together.facts["batch"] == settings["batch"]
        closed(together)
    closed(alone)


def test_what_rounding_could_decide_is_decoded_alone(folder: Path) -> None:
    backend = LocalBackend(LocalSettings(model=str(folder), batch=8))
    first = texts(backend, MIXED)
    assert backend._model is not None
    assert backend._model.tolerance < 1e-4
    backend._model.tolerance = 0.05
    assert texts(backend, MIXED) == first
    assert backend.facts["decoded_alone"] > 0
    closed(backend)


def test_rounding_that_is_too_large_cuts_the_batch_to_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LocalBackend(LocalSettings(model=str(folder), dtype="bfloat16", batch=4))
    texts(backend, [ask("a"), ask("b")])
    assert backend.facts["batch"] == 1
    assert backend.facts["rounding"] > 0.002
    assert "reads one at a time" in caplog.text
    assert backend.model_id.endswith(":bfloat16")
    closed(backend)


def test_usage_is_counted_exactly(tiny: LocalBackend) -> None:
    (found,) = answers(tiny, [ask("äb", 5)])
    assert isinstance(found, Answer)
    assert found.usage is not None
    # A token a byte: <bos>, then "User: äb", a blank line, "Assistant:".
    assert found.usage.prompt == 1 + len("User: äb\n\nAssistant:".encode())
    assert (found.usage.completion, found.finish_reason) == (5, "length")
    assert not found.usage.estimated


def test_stop_strings_end_and_are_cut_off(tiny: LocalBackend) -> None:
    req = ask("a", 20, temperature=1.0, seed=3)
    (whole,) = texts(tiny, [req])
    stop = next(whole[i : i + 2] for i in range(4, 18) if whole.index(whole[i : i + 2]) == i)
    (found,) = answers(tiny, [replace(req, stop=["never this", stop])])
    assert isinstance(found, Answer)
    assert found.text == whole[: whole.index(stop)]
    assert found.finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.completion < 20


def test_the_context_is_never_passed(tiny: LocalBackend) -> None:
    assert tiny.caps.max_context == 1024
    room = 1024 - 1 - len("User: \n\nAssistant:") - 900
    reqs = [ask("x" * 1100), ask("x" * 900, room + 1), ask("x" * 900, room, stop=["\ufffd", "x"])]
    found = answers(tiny, reqs)
    for error in found[:2]:
        assert isinstance(error, AttemptError)
        assert error.event == "context_overflow"
        assert "x" * 20 not in error.message
    assert getattr(found[2], "event", None) != "context_overflow"


def test_what_the_model_cannot_take_is_refused_alone(folder: Path, tmp_path: Path) -> None:
    templated = tmp_path / "chat"
    templated.mkdir()
    for file in folder.iterdir():
        (templated / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (templated / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHATML}))
    backend = LocalBackend(LocalSettings(model=str(templated)))
    assert backend.model_id != LocalBackend(LocalSettings(model=str(folder))).model_id
    found = answers(
        backend,
        [
            ask(messages=[{"role": "tool", "content": "secret"}]),
            ask(extra={"top_k": "many"}),
            ask(extra={"guided_json": {}}),
            ask(max_tokens=0),
            ask("fine"),
        ],
    )
    events = [e.event for e in found[:4] if isinstance(e, AttemptError)]
    assert events == ["bad_request"] * 4
    assert isinstance(found[4], Answer)
    assert found[4].usage is not None
    assert found[4].usage.prompt == len("[user]fine") + 1 + len("[assistant]")
    closed(backend)


def test_a_backend_travels_as_its_settings(folder: Path, tiny: LocalBackend) -> None:
    again = pickle.loads(pickle.dumps(tiny))
    assert again.model_id == tiny.model_id
    assert again.model_id.startswith("hf:dir:")
    assert texts(again, [ask("a")]) == texts(tiny, [ask("a")])
    closed(again)


def test_other_weights_are_another_model(tmp_path: Path, tiny: LocalBackend) -> None:
    other = LocalBackend(LocalSettings(model=str(tiny_model(tmp_path / "other", seed=1))))
    assert other.model_id != tiny.model_id
    closed(other)


def test_a_snapshot_of_the_hub_is_named_by_its_revision(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    backend = LocalBackend(LocalSettings(model=str(snapshot)))
    assert backend.model_id == "hf:Qwen/Qwen3-8B@abc123"
    closed(backend)


def test_a_model_that_cannot_be_loaded_ends_the_job(folder: Path, tmp_path: Path) -> None:
    with pytest.raises((RunError, OSError, ValueError)):
        LocalBackend(LocalSettings(model=str(tmp_path / "nowhere")))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    backend = LocalBackend(LocalSettings(model=str(broken)))
    for error in answers(backend, [ask("a"), ask("b")]):
        assert isinstance(error, LLMJobError)
        assert error.code == "misconfigured"
    closed(backend)


def test_closing_ends_what_is_being_decoded(tiny: LocalBackend) -> None:
    async def closed_meanwhile() -> BaseException | Answer:
        req = ask("a", 900)
        work = asyncio.create_task(tiny.attempt(req, "0" * 64))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await tiny.aclose()
        (found,) = await asyncio.gather(work, return_exceptions=True)
        return found

    found = asyncio.run(closed_meanwhile())
    assert isinstance(found, AttemptError)
    assert found.event == "connection"


@needs_smollm2()
def test_the_packaged_model_talks() -> None:
    backend = LocalBackend()
    capital = ask("What is the capital of France?", 12)
    begun = ask(
        messages=[
            {"role": "user", "content": "Count from one to ten in words, separated by commas."},
            {"role": "assistant", "content": "one, two, three, four,"},
        ],
        max_tokens=3,
    )
    poem = ask("Write a short poem about herring and autumn gales in a harbour.", 6)
    together = answers(backend, [poem, capital, begun])
    assert all(isinstance(a, Answer) for a in together)
    alone = [answers(backend, [req])[0] for req in (poem, capital, begun)]
    assert together == alone
    found = [a for a in together if isinstance(a, Answer)]
    assert found[1].text == "The capital of France is Paris."
    assert found[1].finish_reason == "stop"
    assert found[2].text.startswith(" five")
    assert backend.facts["batch"] == 8
    closed(backend)
