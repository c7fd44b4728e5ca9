"""Evaluate language models with your own keys: register, probe, evaluate, judge, bill.

The domain, in pure Python. It never imports Prefect; `flows`, `tasks` and `blocks` orchestrate it.
"""

__version__ = "0.1.0"
