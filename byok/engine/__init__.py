"""The engine: shards, attempts, journal, limiter, retry."""
