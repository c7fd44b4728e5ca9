"""How providers speak, one module each."""

from byok.sandbox.dialects.deviations import Deviation
from byok.sandbox.dialects.fireworks import Fireworks
from byok.sandbox.dialects.mlflow import Mlflow
from byok.sandbox.dialects.nebius import Nebius
from byok.sandbox.dialects.openai import OpenAI
from byok.sandbox.dialects.proxy import Proxy
from byok.sandbox.dialects.sambanova import SambaNova
from byok.sandbox.dialects.together import Together
from byok.sandbox.dialects.vllm import Vllm

PROFILES: dict[str, type[OpenAI]] = {
    dialect.name: dialect for dialect in (OpenAI, Together, Fireworks, Nebius, SambaNova, Vllm, Mlflow, Proxy)
}
"""The dialects by the name of their profile."""

__all__ = ["PROFILES", "Deviation", "OpenAI"]
