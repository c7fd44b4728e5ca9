"""Facts 1 to 9: the models list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.probing.context import context_in

_CONTEXT = ("max_model_len", "context_length", "contextLength", "context_window")
_NO_KIND = frozenset(
    {*_CONTEXT, "max_completion_tokens", "max_output_tokens", "context_length", "max_output", "pricing", "vision", "tools"}
)
_PER_MILLION = ("input", "output")
_PER_TOKEN = ("prompt", "completion")
_NO_LIST = 'answer GET /models with {"object": "list", "data": [{"id", "object", "created", "owned_by"}, …]}'


def shape(case: Case) -> Verdict:
    """1: a list of models."""
    look = case.seen.last("models")
    if look is None:
        return unanswered(case, "models")
    if look.catalogue is not None:
        count = f"{len(look.catalogue.models)} model(s)"
        if look.catalogue.shape == "list":
            return good(f"an object with data: {count}, as in the reference", look)
        kind = "a bare array" if look.catalogue.shape == "array" else "a page"
        return good(f"{kind} of {count}, where the reference has an object with data; read without loss", look)
    if look.status in (401, 403, 404, 405, 429, 501) or look.status is None:
        return unseen(f"no list: {case.outcome(look)}", look)
    return bad(f"no list of models that can be read: {case.outcome(look)}", _NO_LIST, look)


def members(case: Case) -> Verdict:
    """2: entries with all that the reference's have."""
    look = case.seen.last("models")
    if look is None or look.catalogue is None:
        return _no_list(case)
    listed = look.catalogue
    if listed.left_out:
        return bad(f"{listed.left_out} entries have no id that can be used", "give each model a text as id", look)
    if listed.missing:
        return good(f"an entry or more lacks {', '.join(listed.missing)}, which the reference has; read without loss", look)
    return good("every entry has id, object, created and owned_by", look)


def route(case: Case) -> Verdict:
    """3: a models route where chat works."""
    look, chat = case.seen.last("models"), case.seen.last("chat")
    if look is None:
        return unanswered(case, "models")
    if look.catalogue is not None:
        known = look.catalogue.find(case.target.model_id) is not None
        return good("there is one, and it lists the model" if known else "there is one; it does not list this model, whose id works", look)
    if chat is None or chat.answer is None:
        return unseen("neither the list nor chat answers", look)
    if look.status in (404, 405, 501):
        return bad(f"chat answers, but there is no models route: {case.outcome(look)}", _NO_LIST, look, chat)
    return unseen(f"no list: {case.outcome(look)}", look)


def same_key(case: Case) -> Verdict:
    """4: one key for both routes."""
    if not case.target.with_key:
        return unseen("no key was given")
    models, bare, chat, wrong = (case.seen.last(name) for name in ("models", "models_open", "chat", "wrong_key"))
    if wrong is not None and wrong.answer is not None:
        return bad("chat answers a random key: it looks at none", "refuse a key that is not known with 401", wrong)
    chats = chat is not None and chat.answer is not None
    if models is not None and models.status in (401, 403) and chats:
        return bad(f"the key opens chat, but not the list: {case.outcome(models)}", "let a key that opens chat read the list", models)
    if wrong is None or wrong.status not in (401, 403):
        return unanswered(case, "wrong_key")
    if bare is None or models is None or models.catalogue is None:
        return good(f"chat refuses a random key (HTTP {wrong.status})", wrong)
    if bare.status in (401, 403):
        return good(
            f"the list needs the key (HTTP {bare.status} without), and chat refuses a random one (HTTP {wrong.status})", bare, wrong
        )
    if bare.good:
        told = "the list is open without a key, where the reference needs one; chat refuses a random key"
        return good(f"{told} (HTTP {wrong.status})", bare, wrong)
    return good(f"chat refuses a random key (HTTP {wrong.status}); the list without a key: {case.outcome(bare)}", bare, wrong)


def context(case: Case) -> Verdict:
    """5: the context's length."""
    look, entry = case.entry()
    if look is None or look.catalogue is None:
        return _no_list(case)
    model = look.catalogue.find(case.target.model_id)
    if model is None or entry is None:
        return unseen("the list does not hold the model", look)
    if any(name in model.contradictory for name in _CONTEXT):
        said = ", ".join(f"{name}: {case.quote(entry[name])}" for name in _CONTEXT if name in entry)
        return bad(f"the list contradicts itself: {said}", "tell one context length", look)
    if model.context_length is None:
        return unseen("the list tells no context length; nor does the reference's", look)
    huge = case.seen.last("huge")
    told = context_in(huge.error.message) if huge is not None and huge.error is not None else None
    if told is not None and huge is not None and told != model.context_length:
        seen = f"the list says {model.context_length} tokens, a refusal says {told}"
        return bad(seen, "list the length that the server holds to", look, huge)
    name = next((name for name in _CONTEXT if entry.get(name) is not None), "a page's member")
    as_text = " as a text" if isinstance(entry.get(name), str) else ""
    return good(f"{name}: {model.context_length} tokens{as_text}; the reference's list tells none", look)


def prices(case: Case) -> Verdict:
    """6: prices whose unit is known."""
    look, entry = case.entry()
    if look is None or look.catalogue is None:
        return _no_list(case)
    model = look.catalogue.find(case.target.model_id)
    if model is None or entry is None:
        return unseen("the list does not hold the model", look)
    if "pricing" in model.contradictory:
        return bad("the list tells two prices that differ", "tell one price for each kind of token", look)
    if model.price_input is not None or model.price_output is not None:
        told = ", ".join(f"{price} {what}" for price, what in zip(model.prices, ("in", "out", "cached"), strict=True) if price is not None)
        return good(f"{_form(entry)}; read as USD per million tokens: {told}. The reference's list tells none", look)
    if _told(entry.get("pricing")):
        return bad(
            f"pricing cannot be read: {case.quote(entry['pricing'], 120)}",
            "name input and output in USD per million tokens, or prompt and completion in USD per token",
            look,
        )
    return unseen("the list tells no prices; nor does the reference's", look)


def kind(case: Case) -> Verdict:
    """7: what the model is for."""
    look, _ = case.entry()
    if look is None or look.catalogue is None:
        return _no_list(case)
    model, chat = look.catalogue.find(case.target.model_id), case.seen.last("chat")
    if model is None:
        return unseen("the list does not hold the model", look)
    disputed = [name for name in model.contradictory if name not in _NO_KIND]
    if disputed:
        named = case.quote(", ".join(disputed), 120)
        return bad(f"members that contradict each other: {named}", "let all members say the same of a model", look)
    if model.kind is None:
        return unseen("the list does not say what the model is for; nor does the reference's", look)
    if model.kind != "chat" and chat is not None and chat.answer is not None:
        return bad(f"listed as {model.kind}, but it chats", "list chat models as such", look, chat)
    return good(f"listed as {model.kind}; the reference's list does not say it", look)


def pages(case: Case) -> Verdict:
    """8: a list in pages."""
    look, page = case.seen.last("models"), case.seen.last("page")
    if look is None or look.catalogue is None:
        return _no_list(case)
    if look.catalogue.next_page is None:
        return unseen("the list is one page", look)
    if page is None:
        return unseen("there is a second page, which was not asked for", look)
    if page.catalogue is None:
        return bad(f"the second page cannot be read: {case.outcome(page)}", "answer the token of the next page", look, page)
    first, second = ({model.id for model in one.models} for one in (look.catalogue, page.catalogue))
    if second and second <= first:
        return bad("the token of the next page gives the same page again", "answer pageToken with the next models", look, page)
    return good(f"pages, where the reference has one list; {len(second)} model(s) on the second, read to the end", look, page)


def ids(case: Case) -> Verdict:
    """9: ids with special signs."""
    wanted, chat, look = case.target.model_id, case.seen.last("chat"), case.seen.last("models")
    if not any(sign in wanted for sign in "/#:") and wanted == wanted.lower():
        return unseen("the model's id holds no slash, sharp, colon or capital")
    if chat is None or chat.answer is None:
        return unanswered(case, "chat")
    listed = [model.id for model in look.catalogue.models] if look is not None and look.catalogue is not None else []
    near = next((one for one in listed if one != wanted and one.casefold() == wanted.casefold()), None)
    if wanted not in listed and near is not None and look is not None:
        return bad(f"listed as {case.quote(near)}, in another case", "list ids exactly as requests must give them", look)
    return good("it is taken exactly as it is written", chat)


def _no_list(case: Case) -> Verdict:
    look = case.seen.last("models")
    return unanswered(case, "models") if look is None else unseen(f"there is no models list to look at ({numbers([look])})", look)


def _told(pricing: Any) -> bool:
    """Whether a pricing holds a number other than 0 among the prices of tokens."""
    if isinstance(pricing, list):
        return bool(pricing)
    held = pricing if isinstance(pricing, dict) else {}
    return any(held.get(name) not in (None, 0, 0.0, "", "0") for name in (*_PER_MILLION, *_PER_TOKEN))


def _form(entry: Mapping[str, Any]) -> str:
    pricing = entry.get("pricing")
    if isinstance(pricing, dict):
        for names, unit in ((_PER_MILLION, "a million tokens"), (_PER_TOKEN, "a token")):
            found = next((pricing[name] for name in names if pricing.get(name) is not None), None)
            if found is not None:
                return f"{'texts' if isinstance(found, str) else 'numbers'} for {unit}"
    return "amounts of money" if isinstance(pricing, list) or "serverlessModes" in entry else "numbers for a million tokens"


FACTS = {1: shape, 2: members, 3: route, 4: same_key, 5: context, 6: prices, 7: kind, 8: pages, 9: ids}
