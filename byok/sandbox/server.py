"""The sandbox as a server of its own, in a thread, on loopback only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from byok.errors import InputError
from byok.sandbox.answers import AnswersUnusable, read_answers
from byok.sandbox.faults import Fault, FaultHook, as_hook
from byok.sandbox.replies import Mind
from byok.sandbox.routes import Counters, Settings, make_app, stats_of

HOST = "127.0.0.1"
"""Never another one: the sandbox is no server for others."""


class BadSandboxOption(InputError):
    """An option of the sandbox is out of its range."""

    code = "bad_sandbox_option"


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
        faults: What goes wrong, by request (see `faults`).

    Raises:
        AnswersUnusable: There are no questions, or one has two answers.
        BadSandboxOption: A number is out of range, or the port is taken.
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
    ) -> None:
        if not (0 <= accuracy <= 1 and 0 <= judge_accuracy <= 1 and 0 <= latency_ms <= 600_000 and 0 <= port < 65536 and model_id):
            raise BadSandboxOption(
                "an option of the sandbox is out of range", hint="accuracies lie between 0 and 1, the latency below 10 minutes"
            )
        if api_key == "":
            raise BadSandboxOption("the sandbox's key is empty", hint="give a key, or none at all")
        mind = Mind(_pairs(answers), accuracy=accuracy, judge_accuracy=judge_accuracy, seed=seed)
        self._settings = Settings(mind, model_id, latency_ms, frozenset([api_key] if api_key else []), usage, json_schema, as_hook(faults))
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
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None

    @property
    def host_port(self) -> str:
        """`127.0.0.1:PORT`, as `BYOK_ENDPOINT_ALLOW` wants it."""
        return f"{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL to register."""
        return f"http://{self.host_port}/v1"

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
            make_app(self._settings, self._counters),
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


def _pairs(answers: Sequence[tuple[str, str]] | Path | str) -> list[tuple[str, str]]:
    if isinstance(answers, str | Path):
        return read_answers(Path(answers))
    found: dict[str, str] = {}
    for question, answer in answers:
        if not question.strip() or not answer.strip():
            raise AnswersUnusable("a question or an answer is empty", hint="give both for each")
        if found.setdefault(question.strip(), answer.strip()) != answer.strip():
            raise AnswersUnusable("a question has two answers", hint="questions must be unique")
    if not found:
        raise AnswersUnusable("there are no questions", hint="give at least one")
    return list(found.items())
