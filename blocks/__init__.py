"""Prefect blocks: typed configuration that builds objects of the domain. Never a key.

Register them with `prefect block register -m blocks`.
"""

from blocks.keystore import KeyStore
from blocks.results import EvaluationResults

__all__ = ["EvaluationResults", "KeyStore"]
