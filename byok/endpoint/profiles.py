"""Provider profiles: what is known beforehand about the servers of one provider, read from `data/providers/*.toml`.

A profile changes how an endpoint is asked and how its answers are understood, never where a request goes: the base URL is the
owner's. What a profile does not know is left at what all OpenAI-compatible servers share, or is None.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, field_validator, model_validator

from byok.errors import InputError, NotFound
from byok.ids import SLUG
from byok.resources import shipped

FACTS: Final = 60
"""How many numbered wire facts there are; profiles and tests name them by number."""

RESERVED: Final = frozenset({"messages", "model", "stream"})
"""The client's own members of a chat request: neither a profile nor an owner's extra payload may set them."""

_LABEL = "[a-z0-9-]{1,63}"
_HOST = rf"^(?:(?:\*|{_LABEL})\.)*{_LABEL}\.{_LABEL}$"
_ROUTE = r"^(?:/[A-Za-z0-9_-]+)+(?:\?[a-z_]+=[a-z0-9]+)?$"
_URL = r"^https://[a-z0-9.-]+(?:/[a-z0-9.-]+)*$"

Text = Annotated[str, Field(min_length=1)]
Host = Annotated[str, Field(pattern=_HOST)]
Url = Annotated[str, Field(pattern=_URL)]
Route = Annotated[str, Field(pattern=_ROUTE)]
Parameter = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Header = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Seconds = Annotated[StrictInt, Field(ge=1, le=86_400)]
Fact = Annotated[StrictInt, Field(ge=1, le=FACTS)]
Grades = Annotated[str, Field(pattern=r"^[SDRTU]+$")]
TokenParameter = Literal["max_tokens", "max_completion_tokens"]


class ProfileUnknown(NotFound):
    """No profile has this name."""

    code = "provider_unknown"


class ProfileInvalid(InputError):
    """A profile's file cannot be used."""

    code = "provider_invalid"


class Profile(BaseModel):
    """What is known about the servers of one provider.

    Attributes:
        name: The slug that people type; the name of its file.
        title: Its name for people.
        hosts: Hosts that are this provider's: lower-case names, in which `*` stands for one whole label.
        base_url: Where it serves; None for software that anybody may run.
        other_base_urls: Older and regional addresses.
        path_patterns: Regular expressions for the whole path of a base URL, on whichever host.
        auth: How a key is sent when there is one and nobody says otherwise; `none`: its servers take no key.
        auth_header: Name of the header for `header`; None for the others.
        refused_key: What to do when a key is refused; None: nothing in particular.
        models_path: Route of the models list, after the base URL; None where there is none (written as an empty text).
        chat_path: Route of chat completions.
        embeddings_path: Route of embeddings.
        token_parameter: What the limit of the answer's tokens is called.
        renames: Parameters that are sent under another name.
        drops: Parameters that are never sent.
        logprobs: Whether `logprobs` is a boolean beside `top_logprobs`, or the number itself.
        most_logprobs: Most alternatives per token that may be asked for.
        stream_usage: Whether a stream tells its usage only when `stream_options` ask for it, or unasked.
        encoding_format: Whether embeddings may be asked for with `encoding_format`.
        embedding_batch: Most texts in one request for embeddings.
        default_payload: Members of a chat request unless the owner gives others.
        request_id_headers: Headers with the provider's id of a request; the first that is there counts.
        limit_windows: From the name of a header that tells a limit to the seconds which the limit is for; unknown ones are absent.
        price_source: Where prices are told: in the models list, by the control plane alone, or nowhere.
        price_unit: What a price in the models list means; None where none is told.
        price_text: How prices are told, in words.
        quota_is_rate: Whether a 429 with `insufficient_quota` is a rate limit, and not an account without credit.
        capacity_503: What a 503 means there; None: nothing in particular.
        context_field: Member of an entry of the models list that tells the context length; None: there is none.
        reasoning_fields: Members of a message that hold reasoning; the first that is there counts.
        notes: What people should know: limits and traps.
        facts: Numbers of the wire facts that its servers show.
        evidence: Grades of what each member above rests on. S: official source; D: official documentation; R: run for real; T: third
            party; U: unverified, or sources disagree.
        sandbox: Profile of the sandbox that behaves like it; None: there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=f"^{SLUG}$")
    title: Text
    hosts: tuple[Host, ...] = ()
    base_url: Url | None = None
    other_base_urls: tuple[Url, ...] = ()
    path_patterns: tuple[re.Pattern[str], ...] = ()
    auth: Literal["bearer", "header", "basic", "none"] = "bearer"
    auth_header: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    refused_key: Text | None = None
    models_path: Route | None = "/models"
    chat_path: Route = "/chat/completions"
    embeddings_path: Route = "/embeddings"
    token_parameter: TokenParameter = "max_tokens"
    renames: dict[Parameter, Parameter] = Field(default_factory=dict)
    drops: tuple[Parameter, ...] = ()
    logprobs: Literal["boolean", "integer"] = "boolean"
    most_logprobs: StrictInt = Field(default=20, ge=0, le=20)
    stream_usage: Literal["ask", "unasked"] = "ask"
    encoding_format: StrictBool = True
    embedding_batch: StrictInt = Field(default=32, ge=1, le=2048)
    default_payload: dict[Parameter, Any] = Field(default_factory=dict)
    request_id_headers: tuple[Header, ...] = ("x-request-id", "x-together-request-id", "x-inference-id", "cf-ray")
    limit_windows: dict[Header, Seconds] = Field(default_factory=dict)
    price_source: Literal["models", "control plane", "none"] = "none"
    price_unit: Literal["USD per token", "USD per million tokens"] | None = None
    price_text: Text | None = None
    quota_is_rate: StrictBool = False
    capacity_503: Text | None = None
    context_field: Text | None = None
    reasoning_fields: tuple[Parameter, ...] = ("reasoning", "reasoning_content")
    notes: tuple[Text, ...] = ()
    facts: tuple[Fact, ...] = ()
    evidence: dict[str, Grades] = Field(default_factory=dict)
    sandbox: str | None = Field(default=None, pattern=f"^{SLUG}$")

    @field_validator("models_path", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value  # TOML has no null

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.auth_header is not None) != (self.auth == "header"):
            raise ValueError('auth_header goes with auth = "header", and with nothing else')
        if (self.price_unit is not None) != (self.price_source == "models"):
            raise ValueError('price_unit goes with price_source = "models", and with nothing else')
        taken = sorted(RESERVED & {*self.default_payload, *self.renames, *self.renames.values(), *self.drops})
        if taken:
            raise ValueError(f"{taken[0]} is the client's own member of a request")
        foreign = sorted(self.evidence.keys() - type(self).model_fields.keys())
        if foreign:
            raise ValueError(f"evidence names {foreign[0]}, which is no member of a profile")
        return self

    def claims_host(self, host: str) -> bool:
        """Whether a lower-case host name is this provider's."""
        return any(re.fullmatch(re.escape(pattern).replace(r"\*", _LABEL), host) for pattern in self.hosts)

    def claims_path(self, path: str) -> bool:
        """Whether the path of a base URL, without its closing slash, is one that only this software has."""
        return any(pattern.fullmatch(path) for pattern in self.path_patterns)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape: all attributes, lists for tuples."""
        return self.model_dump(mode="json")


def read_profiles(folder: Path) -> tuple[Profile, ...]:
    """All profiles of a folder, by name.

    Raises:
        ProfileInvalid: A file is malformed, is not named as its profile is, or claims a host that another one claims.
    """
    found = [_read(path) for path in sorted(folder.glob("*.toml"))]
    owners: dict[str, str] = {}
    for one in found:
        for host in one.hosts:
            if owners.setdefault(host, one.name) != one.name:
                raise _invalid(f"{one.name}.toml", f"{host} is claimed by {owners[host]}.toml too")
    return tuple(sorted(found, key=lambda one: one.name))


def _read(path: Path) -> Profile:
    try:
        made = Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        problem = "" if made.name == path.stem else f"its name is {made.name!r}, which is not that of the file"
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
        problem = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        problem = str(error)
    if problem:
        raise _invalid(path.name, problem)
    return made


def _invalid(file: str, problem: str) -> ProfileInvalid:
    return ProfileInvalid(f"provider profile {file}: {problem}", hint="see data/providers/ for the form", file=file)


@cache
def profiles() -> tuple[Profile, ...]:
    """The profiles that ship, by name.

    Raises:
        ProfileInvalid: One of them cannot be used.
    """
    return read_profiles(shipped("data", "providers"))


def profile(name: str) -> Profile:
    """The profile of a name.

    Raises:
        ProfileUnknown: None has it.
    """
    found = next((one for one in profiles() if one.name == name), None)
    if found is None:
        raise ProfileUnknown(f"there is no provider {name[:80]!r}", hint="one of: " + ", ".join(one.name for one in profiles()))
    return found


PLAIN: Final = profile("openai")
"""What is asked of a server about which nothing else is known."""


def profile_for(base_url: str, name: str | None = None) -> Profile:
    """The profile of an endpoint: the one that is named, else the one that claims its host, else its path, else `PLAIN`.

    Args:
        base_url: As registered. One that cannot be read, or that programs read differently, is nobody's.
        name: Name of a profile, which stands above what the URL says.

    Raises:
        ProfileUnknown: No profile has that name.
    """
    if name is not None:
        return profile(name)
    host, path = _host_and_path(base_url)
    by_host = next((one for one in profiles() if one.claims_host(host)), None)
    return by_host or next((one for one in profiles() if one.claims_path(path)), PLAIN)


def _host_and_path(url: str) -> tuple[str, str]:
    if len(url) > 2048 or not url.isascii() or not url.isprintable() or any(char in url for char in "\\@ "):
        return "", ""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        return "", ""
    return (parts.hostname or "", parts.path.rstrip("/")) if parts.scheme in ("http", "https") else ("", "")
