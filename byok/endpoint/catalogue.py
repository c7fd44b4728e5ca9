"""The list of models that an endpoint offers: ids, context, prices and abilities, as far as they can be believed.

Providers agree on hardly a member (providers.md, sections 2 to 6 and facts 1, 2 and 5 to 9). What is absent, odd or
contradictory is None: a wrong price or ability would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from byok.endpoint.listed_prices import UNKNOWN, Kind, Prices, read_prices, whole_number
from byok.endpoint.wire import Redactor, whole

MOST_MODELS = 20_000
"""Entries that are kept of a list."""

LONGEST_ID = 512
"""Characters of a model's id; a cut id would be another model's."""

LONGEST_TOKEN = 4096
"""Characters of a token for the next page."""

REQUIRED = ("object", "created", "owned_by")
"""Members beside `id` that OpenAI's model object always has."""

_PAGE = {"nextPageToken": "pageToken", "next_page_token": "page_token", "next_cursor": "after"}
"""Where a page names the next one, and the query parameter that asks for it."""
_CONTEXT = ("max_model_len", "context_length", "contextLength", "context_window")
_OUTPUT = ("max_completion_tokens", "max_output_tokens")
_WORDY = ("capabilities", "features", "supported_features", "supported_parameters")
_IMAGES = (("supports_image_input", "supportsImageInput"), ("vision", "image_input"))
_TOOLS = (("supports_tools", "supportsTools"), ("tools", "tool_calling", "function_calling", "tool_use"))
_TYPES: dict[str, Kind] = {
    **{"chat": "chat", "embedding": "embedding", "image": "other", "moderation": "other", "rerank": "other"},
    **{"audio": "other", "transcribe": "other", "video": "other"},
    # Fireworks' kinds; of its others, such as HF_BASE_MODEL, some take chat and some do not.
    **{"embedding_model": "embedding", "flumina_base_model": "other", "flumina_addon": "other", "draft_addon": "other"},
}
_TASKS: dict[str, Kind] = {
    **{"chat": "chat", "completion_chat": "chat", "embedding": "embedding"},
    **{"reranking": "other", "image_generation": "other", "video_generation": "other"},
}
_PREFIX = re.compile("^(?:capability|feature|modality)_")


@dataclass(frozen=True)
class ListedModel:
    """One model of a list. Unknown is None, never 0.

    Attributes:
        id: What requests call it, exactly: it may hold `/`, `#` and `:`, and its case matters.
        kind: What it answers; None where the list does not say.
        context_length: Tokens of prompt and answer together; the least, where an entry says several.
        max_output: Most tokens of an answer.
        price_input: USD per million tokens of the prompt, exact to the 12 places that money has.
        price_output: USD per million tokens of the answer.
        price_cached: USD per million tokens of the prompt that came from a cache.
        vision: Whether it takes images.
        tools: Whether it takes tools.
        contradictory: Names of the members that contradict each other, of `pricing` when two prices do.
        parent: The model that this one adapts (vLLM's LoRA adapters).
    """

    id: str
    kind: Kind | None = None
    context_length: int | None = None
    max_output: int | None = None
    price_input: Decimal | None = None
    price_output: Decimal | None = None
    price_cached: Decimal | None = None
    vision: bool | None = None
    tools: bool | None = None
    contradictory: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def prices(self) -> Prices:
        """All three prices."""
        return self.price_input, self.price_output, self.price_cached


@dataclass(frozen=True)
class Catalogue:
    """A list of models, or a page of one.

    Attributes:
        shape: OpenAI's object with `data`, a bare array, or a page.
        models: In the order of the list, each id once.
        missing: Members that OpenAI's model object has and an entry lacks.
        next_page: Token of the next page; None at the end.
        left_out: Entries without an id that can be used, or beyond `MOST_MODELS`.
        next_parameter: Query parameter that asks for the next page.
    """

    shape: Literal["list", "array", "paged"]
    models: tuple[ListedModel, ...]
    missing: tuple[str, ...]
    next_page: str | None
    left_out: int = 0
    next_parameter: str = "pageToken"

    def find(self, model_id: str) -> ListedModel | None:
        """The model with exactly this id: no other case, and no id with a part left out."""
        return next((model for model in self.models if model.id == model_id), None)


def read_catalogue(value: Any, *, redact: Redactor | None = None) -> Catalogue | None:
    """The models of a JSON value, in any of the shapes that are known; None when it is no list of models. Never raises.

    Args:
        value: The reply's value.
        redact: Takes the key out of texts.
    """
    named = value if isinstance(value, dict) and not value.get("error") else {}
    data = named.get("data")
    entries = value if isinstance(value, list) else data if isinstance(data, list) else named.get("models")
    if not isinstance(entries, list):
        return None
    clean = redact or Redactor(None)
    read = [(entry, model) for entry in entries[:MOST_MODELS] if (model := _model(entry, clean)) is not None]
    if entries and not read:
        return None
    tokens = [named[name] for name in _PAGE if name in named]
    return Catalogue(
        "array" if isinstance(value, list) else "paged" if tokens or entries is not data else "list",
        _each_once(model for _, model in read),
        tuple(name for name in REQUIRED if any(not isinstance(entry, dict) or entry.get(name) is None for entry, _ in read)),
        next((clean(whole(token)) for token in tokens if isinstance(token, str) and 0 < len(token) <= LONGEST_TOKEN), None),
        len(entries) - len(read),
        next((parameter for name, parameter in _PAGE.items() if name in named), "pageToken"),
    )


def merge(pages: Iterable[Catalogue]) -> Catalogue:
    """One catalogue of several pages, in their order.

    Its `next_page` is that of the last page: where it is not None, the list is not complete.
    """
    pages = list(pages)
    models = _each_once(model for page in pages for model in page.models)
    return Catalogue(
        pages[0].shape if len(pages) == 1 else "paged",
        models[:MOST_MODELS],
        tuple(name for name in REQUIRED if any(name in page.missing for page in pages)),
        pages[-1].next_page if pages else None,
        sum(page.left_out for page in pages) + len(models[MOST_MODELS:]),
    )


def _each_once(models: Iterable[ListedModel]) -> tuple[ListedModel, ...]:
    found: dict[str, ListedModel] = {}
    for model in models:
        found[model.id] = _joined(found[model.id], model) if model.id in found else model
    return tuple(found.values())


def _joined(one: ListedModel, other: ListedModel) -> ListedModel:
    """A model that is listed twice: what only one entry says is kept, what both say differently is None."""
    disputed = [*one.contradictory, *other.contradictory]
    values: dict[str, Any] = {}
    for name in ("kind", "context_length", "max_output", "vision", "tools", "parent"):
        mine, its = getattr(one, name), getattr(other, name)
        if mine != its and mine is not None and its is not None:
            disputed.append(name)
        # A third entry does not settle what two have disputed.
        values[name] = mine if mine == its else None if name in disputed else its if mine is None else mine
    offers = {one.prices, other.prices} - {UNKNOWN}
    if len(offers) > 1:
        disputed.append("pricing")
    prices = offers.pop() if len(offers) == 1 and "pricing" not in disputed else UNKNOWN
    values["price_input"], values["price_output"], values["price_cached"] = prices
    return replace(one, **values, contradictory=tuple(dict.fromkeys(disputed)))


def _model(entry: Any, redact: Redactor) -> ListedModel | None:
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, dict):
        return None
    # Where an entry has `displayName`, `name` is what requests call it (Fireworks' control plane; Together's second list, whose
    # `id` is of the catalogue's own making); elsewhere `name` is for people.
    names = ("name", "id") if "displayName" in entry else ("id", "name")
    model_id = _id(next((entry[name] for name in names if entry.get(name) is not None), None), redact)
    if model_id is None:
        return None
    disputed: list[str] = []
    inputs, outputs = _modalities(entry)
    kind = _kind(entry, inputs, outputs, disputed)
    price_input, price_output, price_cached = read_prices(entry, kind, disputed)
    images = [(name, "image" in said) for name, said in inputs.items() if said]
    return ListedModel(
        id=model_id,
        kind=kind,
        context_length=_least(entry, _CONTEXT, disputed),
        max_output=_least(entry, _OUTPUT, disputed),
        price_input=price_input,
        price_output=price_output,
        price_cached=price_cached,
        vision=_agreed(images + _flags(entry, *_IMAGES), disputed),
        tools=_agreed(_flags(entry, *_TOOLS), disputed),
        contradictory=tuple(dict.fromkeys(disputed)),
        parent=_id(entry.get("parent"), redact),
    )


def _id(value: Any, redact: Redactor) -> str | None:
    text = redact(whole(value)) if isinstance(value, str) else ""
    return text if 0 < len(text) <= LONGEST_ID else None


def _least(entry: Mapping[str, Any], names: Iterable[str], disputed: list[str]) -> int | None:
    """The least number of tokens that one of these members says: the safe one."""
    said = {name: count for name in names if (count := _tokens(entry.get(name))) is not None}
    if len(set(said.values())) > 1:
        disputed.extend(said)
    return min(said.values(), default=None)


def _tokens(value: Any) -> int | None:
    return whole_number(value) or None


def _agreed(said: Iterable[tuple[str, bool]], disputed: list[str]) -> bool | None:
    said = list(said)
    values = {value for _, value in said}
    if len(values) > 1:
        disputed.extend(name for name, _ in said)
    return values.pop() if len(values) == 1 else None


def _flags(entry: Mapping[str, Any], names: Iterable[str], words: Iterable[str]) -> list[tuple[str, bool]]:
    """What an entry says of an ability: by flags of these names, and by these words among its features."""
    said = [(name, entry[name]) for name in names if isinstance(entry.get(name), bool)]
    return said + [
        (name, found[word]) for name in _WORDY if name in entry for found in [_words(entry[name])] for word in words if word in found
    ]


def _words(value: Any) -> dict[str, bool]:
    """Words of a list, which are all true, or of an object of booleans (Mistral's form), in one spelling."""
    if not isinstance(value, dict | list):
        return {}
    pairs = value.items() if isinstance(value, dict) else ((word, True) for word in value)
    return {
        _PREFIX.sub("", word.strip().lower().replace("-", "_")): said
        for word, said in pairs
        if isinstance(word, str) and len(word) <= 64 and word.strip() and isinstance(said, bool)
    }


def _modalities(entry: Mapping[str, Any]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """By the member that says it: what goes into a model and what comes out; `text+image->text`, or lists of each."""
    architecture = entry.get("architecture")
    places = [("", entry), ("architecture.", architecture if isinstance(architecture, dict) else {})]
    ways: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
    for place, holder in places:
        for way, side in zip(ways, ("input", "output"), strict=True):
            for name in (f"{side}_modalities", f"{side}Modalities"):
                if name in holder:
                    way[place + name] = set(_words(holder[name]))
        arrow = holder.get("modality")
        if isinstance(arrow, str) and len(arrow) <= 200 and arrow.count("->") == 1:
            for way, text in zip(ways, arrow.split("->"), strict=True):
                way[f"{place}modality"] = set(_words(text.split("+")))
    return ways


def _kind(entry: Mapping[str, Any], inputs: Mapping[str, set[str]], outputs: Mapping[str, set[str]], disputed: list[str]) -> Kind | None:
    """What a model answers. Members that name its kind outweigh flags that merely allow chat, which some set for every model."""
    named: dict[str, Kind] = {}
    chats: list[tuple[str, bool]] = [(name, entry[name]) for name in ("supports_chat", "supportsChat") if isinstance(entry.get(name), bool)]
    tasks = {_TASKS[word] for word, said in _words(entry.get("capabilities")).items() if said and word in _TASKS}
    if tasks:
        named["capabilities"] = min(tasks)  # what takes chat among other tasks is a chat model
    for name in ("type", "kind") if tasks else ("type", "kind", "displayType"):
        if isinstance(entry.get(name), str) and (kind := _TYPES.get(entry[name].lower())):
            named[name] = kind
    for name, out in outputs.items():
        if out & {"embedding", "embeddings"}:
            named[name] = "embedding"
        elif out and ("text" not in out or inputs.get(name) == {"audio"}):
            named[name] = "other"
        elif out and name.endswith("modality"):
            chats.append((name, True))
    kinds = set(named.values())
    if len(kinds) > 1:
        disputed.extend(named)
        return None
    if kinds:
        kind = kinds.pop()
        wrong = [name for name, chat in chats if chat != (kind == "chat")]
        disputed.extend([*named, *wrong] if wrong else [])
        return kind
    chat = _agreed(chats, disputed)
    reads = {word for words in inputs.values() for word in words}
    if not chats and any("text" in out for out in outputs.values()) and (not reads or "text" in reads):
        return "chat"
    return None if chat is None else "chat" if chat else "other"
