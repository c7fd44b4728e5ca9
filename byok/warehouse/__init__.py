"""DuckDB: segments, group commit, migrations, the published snapshot."""
