"""Where evaluation results are, for flows of data teams."""

from __future__ import annotations

from pathlib import Path

from prefect.blocks.core import Block
from pydantic import Field

from byok.home import Home
from byok.warehouse import Result, Warehouse


class EvaluationResults(Block):
    """The published results of a byok installation, to be queried read-only.

    Example:
        Query the leaderboard in a flow of your own:
        ```python
        from blocks import EvaluationResults

        results = EvaluationResults.load("BLOCK_NAME")
        print(results.query("SELECT * FROM v1.leaderboard").rows)
        ```
    """

    _block_type_name = "Evaluation Results"
    _block_type_slug = "byok-evaluation-results"
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"

    home: str = Field(title="Home", description="The folder of the installation (its BYOK_HOME).")

    def query(self, sql: str, parameters: list[object] | None = None) -> Result:
        """Run one read-only query on the published snapshot.

        Args:
            sql: The query, over the views of schema `v1`.
            parameters: Values for its `?` placeholders.

        Returns:
            Column names and rows.
        """
        home = Home(Path(self.home))
        return Warehouse(home.warehouse, home.spool).query(sql, parameters)
