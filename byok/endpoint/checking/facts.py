"""The table of wire facts that a check looks at: number, title, and how each is observed (providers.md, section 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fact:
    """One thing in which OpenAI-compatible servers differ.

    Attributes:
        number: As the reference numbers it, from 1.
        title: A few words.
        how: What shows it.
    """

    number: int
    title: str
    how: str


_ROWS = (
    ("Shape of the models list", "GET models"),
    ("Members of listed models", "GET models"),
    ("A models route beside chat", "GET models, and whether chat answers"),
    ("Same key for models and chat", "models with and without the key, and a chat with a random key"),
    ("Context length in the list", "the model's entry in the list"),
    ("Prices in the list", "the model's entry in the list"),
    ("Kind of model in the list", "the model's entry in the list, and whether it chats"),
    ("Pages of the list", "a second page, where the list names one"),
    ("Model ids with special signs", "the model's id, when it holds a slash, a sharp, a colon or capitals"),
    ("Routes under the base URL", "whether chat answers below the URL"),
    ("No redirects", "the status of every reply"),
    ("The key where it is sent", "a chat with the key, and one with a random key"),
    ("Certificate", "the TLS handshake"),
    ("Error object", "every error's body"),
    ("Error as a bare text", "every error's body"),
    ("Error in detail, as a text", "every error's body"),
    ("Error in detail, as a list", "every error's body"),
    ("Error in detail, as an object", "every error's body"),
    ("Error as a bare message, or mislabelled", "every error's body and its content type"),
    ("Errors that are no JSON", "every error's body"),
    ("Success means success", "the body of every 200"),
    ("Request id", "headers and bodies of chat and embeddings"),
    ("Too much for the context", "a chat that asks for more tokens than any model has, cut off after its first piece"),
    ("403 for permissions alone", "every 403"),
    ("Account states", "every 402 and 412"),
    ("A model that does not exist", "a chat with a model id that nobody has"),
    ("Cold start", "every 503 that names one"),
    ("Quota or rate", "every 429 that speaks of a quota"),
    ("429 and 503", "every 429 and 503"),
    ("503 as a web page", "every 503"),
    ("Retry-After", "the headers of every 429 and 503"),
    ("Resets of limits", "rate-limit headers of all replies"),
    ("Windows and numbers of limits", "rate-limit headers of all replies"),
    ("Served beyond the limit", "rate-limit headers of all replies"),
    ("Rate-limit headers at all", "headers of all replies"),
    ("Usage of answers", "every answer that comes whole, and embeddings"),
    ("Usage of streams", "a stream that asks for usage"),
    ("stream_options", "a stream that asks for usage"),
    ("Cached tokens", "every usage"),
    ("Sums of usage", "every usage"),
    ("Foreign members of usage", "every usage"),
    ("Reasoning apart from the answer", "every answer"),
    ("Content of the message", "a plain chat"),
    ("Finish reason", "every answer"),
    ("Chunks of a stream", "a stream of text, and one with a tool call"),
    ("Finish of a named tool call", "a chat that has to call one named tool"),
    ("Log probabilities", "a stream that asks for them"),
    ("Asking for log probabilities", "a stream that asks for them, in the other form if need be"),
    ("End of a stream", "the last events of a stream"),
    ("Errors inside a stream", "every stream that fails"),
    ("Answers come to their end", "every answer"),
    ("Streams come as they are made", "arrival times of a stream's pieces"),
    ("Idle connections", "every request after the first; nothing is waited for"),
    ("Numbers within their types", "integers, created and service_tier of every answer"),
    ("Name of the token limit", "a chat with each of the two names"),
    ("Parameters have an effect, or are refused", "what was asked and what came, an unknown parameter, a temperature out of range"),
    ("Answers by a JSON schema", "a chat with a schema of which the prompt says nothing"),
    ("JSON mode", "a chat in JSON mode"),
    ("Encoding and order of embeddings", "two texts as floats, and again in base64"),
    ("Embeddings where there are none", "the embeddings route with a model that makes none"),
)

FACTS: Final = tuple(Fact(number, title, how) for number, (title, how) in enumerate(_ROWS, 1))
"""All of them, by number."""
