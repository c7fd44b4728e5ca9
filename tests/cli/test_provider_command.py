"""`byok provider` in processes of its own, on a machine without an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from byok.endpoint.profiles import Profile, profiles
from byok_testing.installation import Byok, clean_environment


@pytest.fixture
def byok(tmp_path: Path) -> Byok:
    return Byok(tmp_path / "home", clean_environment(tmp_path / "home"))


def test_list(byok: Byok) -> None:
    told = byok.json("provider", "list")
    assert told == {"providers": [one.as_dict() for one in profiles()]}
    shown = byok.run("provider", "list").stdout
    for one in profiles():
        assert one.name in shown
        assert one.base_url is None or one.base_url in shown
    assert not byok.home.exists()


def test_show_by_name(byok: Byok) -> None:
    told = byok.json("provider", "show", "nebius")
    assert told.keys() == {"provider", "chosen_by"}
    assert told["provider"].keys() == Profile.model_fields.keys()
    assert (told["provider"]["name"], told["chosen_by"]) == ("nebius", "name")
    assert told["provider"]["limit_windows"]["x-ratelimit-limit-requests"] == 60
    shown = byok.run("provider", "show", "nebius")
    assert shown.stderr == ""
    for text in ("Nebius Token Factory", "/models?verbose=true", "USD per token", *told["provider"]["notes"]):
        assert text in shown.stdout


@pytest.mark.parametrize(
    ("url", "name", "chosen_by", "said"),
    [
        ("https://API.together.xyz:443/v1/", "together", "address", "this address gets the profile together"),
        ("http://127.0.0.1:5000/gateway/mlflow/v1", "mlflow", "address", "this address gets the profile mlflow"),
        ("https://api.together.ai.evil.example/v1", "openai", "default", "no profile claims this address"),
    ],
)
def test_show_by_address(byok: Byok, url: str, name: str, chosen_by: str, said: str) -> None:
    told = byok.json("provider", "show", url)
    assert (told["provider"]["name"], told["chosen_by"]) == (name, chosen_by)
    assert said in byok.run("provider", "show", url).stdout


def test_a_password_in_an_address_is_not_repeated(byok: Byok) -> None:
    for options in ([], ["--json"]):
        done = byok.run("provider", "show", "https://user:hunter2@api.together.ai/v1", *options)
        assert "hunter2" not in done.stdout + done.stderr


def test_an_unknown_name(byok: Byok) -> None:
    error = byok.json("provider", "show", "nobody", code=2)["error"]
    assert error["code"] == "provider_unknown"
    assert "together" in error["hint"]
    assert "provider_unknown" in byok.run("provider", "show", "api.together.ai", code=2).stderr
