"""What the providers do otherwise than the OpenAI API: one table each, which tests hold the dialects to."""

from byok.sandbox.dialects.deviations.deviation import Deviation
from byok.sandbox.dialects.deviations.hosted import FIREWORKS, NEBIUS, SAMBANOVA, TOGETHER
from byok.sandbox.dialects.deviations.mlflow import MLFLOW
from byok.sandbox.dialects.deviations.served import PROXY, VLLM

__all__ = ["FIREWORKS", "MLFLOW", "NEBIUS", "PROXY", "SAMBANOVA", "TOGETHER", "VLLM", "Deviation"]
