"""The recipe is shown in full, but for what must not be passed on."""

from pathlib import Path

import yaml

from longctx.credentials import MASK
from longctx.report.settings import plain
from tests.report.example import recipe


def test_a_recipe_survives_as_yaml() -> None:
    assert yaml.safe_load(yaml.safe_dump(plain(recipe()))) == recipe()


def test_values_that_yaml_does_not_know_become_text() -> None:
    assert plain({"path": Path("/data"), "bins": (1, 2), 3: None}) == {
        "path": "/data",
        "bins": [1, 2],
        "3": None,
    }


def test_credentials_are_masked_and_look_alikes_are_not() -> None:
    shown = plain(
        {
            "storage": {"secret_access_key": "k", "password": "p"},
            "llm": {"api_key": "sk-1", "api_key_env": "OPENAI_API_KEY", "max_tokens": 9},
            "tokenizer": {"path": "qwen"},
        }
    )
    assert shown["storage"] == {"secret_access_key": MASK, "password": MASK}
    assert shown["llm"] == {"api_key": MASK, "api_key_env": "OPENAI_API_KEY", "max_tokens": 9}
    assert shown["tokenizer"] == {"path": "qwen"}
