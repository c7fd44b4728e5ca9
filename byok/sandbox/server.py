"""The sandbox as a server of its own, in a thread, on loopback only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from byok.sandbox.faults import Fault, FaultHook, as_hook
from byok.sandbox.options import REASONING_PLACES, BadSandboxOption, capabilities, dialect_of, pairs
from byok.sandbox.replies import Mind
from byok.sandbox.routes import make_app
from byok.sandbox.settings import Counters, Settings, stats_of

HOST = "127.0.0.1"
"""Never another one: the sandbox is no server for others."""


class Sandbox:
    """A simulated OpenAI-compatible provider; a context manager, and its port is known before it is entered.

    It answers `round(accuracy * n)` of its n questions rightly, the same ones each time, whatever the order of requests. Asked as
    a judge, it says whether the expected answer occurs in the output under judgement.

    Args:
        answers: Questions with expected answers, or a JSONL file (see `read_answers`).
        accuracy: Share of questions answered rightly, 0 to 1.
        judge_accuracy: Share of questions about which it judges rightly, 0 to 1.
        seed: Chooses which questions.
        latency_ms: Wait before each answer, in milliseconds.
        api_key: Key that requests must bring; None takes any request.
        model_id: The one model that it serves.
        usage: Whether answers tell their tokens.
        json_schema: Whether it takes a JSON schema as response format.
        port: 0 takes a free one.
        faults: What goes wrong, by chat request (see `faults`).
        profile: The provider whose dialect it speaks, one of `PROFILES`.
        supports: What it can do (`capabilities.NAMES`), the rest being refused; None for what the provider's models can usually do,
            which is all but vision and reasoning.
        ignores: What it accepts with status 200 and without effect, whether it can do it or not.
        embedding_model_id: The one model that makes embeddings.
        embedding_dimensions: Of their vectors.
        embedding_faults: What goes wrong, by request for embeddings; called with its number and its first text.
        context_length: Most tokens of prompt and answer together.
        chunk_latency_ms: Wait before each chunk of a stream but the first, in milliseconds.
        reasoning_as: Member in which reasoning is told (`reasoning`, `reasoning_content`, `both`), or `think` for tags inside the
            text; None for the provider's own way.
        page_size: Most models on one page, where a provider's list has pages.

    Raises:
        AnswersUnusable: There are no questions, or one has two answers.
        BadSandboxOption: A number is out of range, a name is unknown, or the port is taken.
    """

    def __init__(
        self,
        answers: Sequence[tuple[str, str]] | Path | str,
        *,
        accuracy: float = 1.0,
        judge_accuracy: float = 1.0,
        seed: int = 1,
        latency_ms: float = 0,
        api_key: str | None = None,
        model_id: str = "sandbox-model",
        usage: bool = True,
        json_schema: bool = True,
        port: int = 0,
        faults: FaultHook | Sequence[Fault | int | None] | None = None,
        profile: str = "openai",
        supports: frozenset[str] | None = None,
        ignores: frozenset[str] = frozenset(),
        embedding_model_id: str = "sandbox-embedding",
        embedding_dimensions: int = 64,
        embedding_faults: FaultHook | Sequence[Fault | int | None] | None = None,
        context_length: int = 8192,
        chunk_latency_ms: float = 0,
        reasoning_as: str | None = None,
        page_size: int = 200,
    ) -> None:
        if not (0 <= accuracy <= 1 and 0 <= judge_accuracy <= 1 and 0 <= latency_ms <= 600_000 and 0 <= port < 65536 and model_id):
            raise BadSandboxOption(
                "an option of the sandbox is out of range", hint="accuracies lie between 0 and 1, the latency below 10 minutes"
            )
        if not (1 <= embedding_dimensions <= 4096 and context_length >= 1 and 0 <= chunk_latency_ms <= 60_000 and page_size >= 1):
            raise BadSandboxOption("an option of the sandbox is out of range", hint="at most 4096 dimensions and a minute for each chunk")
        if embedding_model_id in ("", model_id):
            raise BadSandboxOption("the embedding model has no id of its own", hint="give another embedding model id")
        if api_key == "":
            raise BadSandboxOption("the sandbox's key is empty", hint="give a key, or none at all")
        self._dialect = dialect_of(profile)
        can = capabilities(self._dialect.supports if supports is None else supports, ignores, json_schema=json_schema)
        if reasoning_as not in (None, *REASONING_PLACES):
            raise BadSandboxOption(f"{reasoning_as!r} is no place for reasoning", hint=f"one of {', '.join(REASONING_PLACES)}")
        mind = Mind(pairs(answers), accuracy=accuracy, judge_accuracy=judge_accuracy, seed=seed)
        self._settings = Settings(
            mind=mind,
            model_id=model_id,
            latency_ms=latency_ms,
            api_keys=frozenset([api_key] if api_key else []),
            usage=usage,
            can=can,
            hook=as_hook(faults),
            embedding_hook=as_hook(embedding_faults),
            embedding_model_id=embedding_model_id,
            dimensions=embedding_dimensions,
            context_length=context_length,
            chunk_latency_ms=chunk_latency_ms,
            reasoning_as=reasoning_as,
            page_size=page_size,
        )
        self._counters = Counters()
        # asyncio switches Nagle's algorithm off only on sockets that say they are TCP; with it each answer waits 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError:
            self._socket.close()
            raise BadSandboxOption(f"port {port} cannot be used", hint="choose another, or 0 for a free one") from None
        self.port: int = self._socket.getsockname()[1]
        self.model_id = model_id
        self.embedding_model_id = embedding_model_id
        self.profile = profile
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None

    @property
    def host_port(self) -> str:
        """`127.0.0.1:PORT`, as `BYOK_ENDPOINT_ALLOW` wants it."""
        return f"{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL to register."""
        return f"http://{self.host_port}{self._dialect.prefix}"

    @property
    def right_questions(self) -> frozenset[str]:
        """The questions that it answers rightly."""
        return self._settings.mind.right

    @property
    def rightly_judged_questions(self) -> frozenset[str]:
        """The questions about which it judges rightly."""
        return self._settings.mind.judged_right

    def accept(self, *api_keys: str) -> None:
        """Take these keys from now on and no others, as after a rotation in a provider's console.

        Raises:
            BadSandboxOption: There is none, or an empty one.
        """
        if not api_keys or not all(api_keys):
            raise BadSandboxOption("the sandbox's key is empty", hint="give one or more keys")
        self._settings.api_keys = frozenset(api_keys)

    def stats(self) -> dict[str, int]:
        """What `GET /stats` tells: the counters, `rows` and `right_rows`."""
        return stats_of(self._settings, self._counters)

    def __enter__(self) -> Self:
        config = uvicorn.Config(
            make_app(self._settings, self._counters, self._dialect),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            # A cut connection is asked for; its traceback is no news.
            log_level="critical",
            access_log=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        self._socket.listen(2048)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name=f"sandbox-{self.port}", daemon=True)
        self._thread.start()
        # The socket already listens: a client that comes too early waits in its queue, so there is nothing to wait for.
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and free the port; more than once does no harm."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None
        self._socket.close()
