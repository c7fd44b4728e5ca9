"""`byok key`: seal a key so that it can be pasted into a form."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from byok.app import open_services
from byok.cli.credentials import PLAIN_KEY, AuthOptions, read_credentials
from byok.cli.keyinput import KeyMissing, read_key
from byok.cli.output import Json, emit, note
from byok.endpoint import profile_for

app = App(name="key", help="Seal a provider key so that it can be pasted into a form of the Prefect UI.")


@app.command
def seal(
    model: str,
    /,
    *,
    base_url: str | None = None,
    api_key_stdin: Annotated[bool, Parameter(negative="")] = False,
    api_key_env: str | None = None,
    credentials: AuthOptions = PLAIN_KEY,
    provider: str | None = None,
    json: Json = False,
) -> None:
    """Seal a key: for a model that you are about to register, or as the next key of one that is registered.

    What is printed opens only for this model, this version of its key and this origin, inside this installation: it is safe to paste
    into the flows register_model and rotate_key.

    Args:
        model: Key of the model.
        base_url: Base URL of a model that is not registered yet; left out for one that is.
        api_key_stdin: Read the key from standard input.
        api_key_env: Environment variable that holds the key.
        provider: Provider profile of a model that is not registered yet, where the form names one.
        json: Print JSON of a stable shape instead of text.
    """
    services = open_services()
    key = read_key(api_key_stdin, api_key_env)
    before = None if base_url is not None else services.registry.get(services.actor, model)
    how = profile_for(base_url or (before.base_url if before else ""), provider or (before.provider if before else None))
    secret = read_credentials(key, credentials, how, before.auth if before else None)
    if secret is None:
        raise KeyMissing("there is no key to seal", hint="add --api-key-stdin or --api-key-env VAR")
    sealed = services.registry.seal(services.actor, model, secret, base_url=base_url)
    told = {"model": model, "version": sealed.version, "origin": sealed.origin, "text": sealed.text()}

    def draw(_: object) -> None:
        print(sealed.text())
        note(f"for version {sealed.version} of the key of {model} at {sealed.origin}; paste it together with a grant: byok grant --help")

    emit({"sealed_key": told}, json=json, human=draw)
