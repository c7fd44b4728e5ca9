"""Sealed keys open in their place and nowhere else."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byok.keystore import (
    KeyStoreDenied,
    KeyStoreUnreachable,
    LocalKeyStore,
    OrgKeyMissing,
    SealContext,
    SecretIntegrity,
    create_kek,
    mask,
    open_keystore,
)

STORE = LocalKeyStore({"kek-a": bytes(range(32))})
SECRET = "sk-proj-0123456789abcdefABCDEF"
texts = st.text(max_size=20)
org_ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
contexts = st.builds(SealContext, org_ids, texts, st.integers(0, 9), texts)


@given(secret=st.text(min_size=1, max_size=200), context=contexts)
def test_what_is_sealed_opens_under_the_same_context(secret, context):
    sealed = STORE.seal(secret, context)
    assert STORE.open(sealed, context) == secret
    assert STORE.seal(secret, context) != sealed  # never the same ciphertext twice


@given(one=contexts, other=contexts)
def test_no_two_contexts_are_alike(one, other):
    assert (one.encode() == other.encode()) == (one == other)
    if one != other:
        with pytest.raises(SecretIntegrity):
            STORE.open(STORE.seal(SECRET, one), other)


def test_parts_of_a_context_do_not_run_into_each_other():
    assert SealContext("a", "bc", 1, "o").encode() != SealContext("ab", "c", 1, "o").encode()


CONTEXT = SealContext("org", "model", 1, "https://a.example:443")
# One for all examples: what is drawn may not depend on a ciphertext that is new each time.
SEALED = STORE.seal(SECRET, CONTEXT)


@settings(max_examples=300)
@given(data=st.data())
def test_a_ciphertext_with_any_character_changed_does_not_open(data):
    context, sealed = CONTEXT, SEALED
    place = data.draw(st.integers(0, len(sealed) - 1))
    char = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_=: ").filter(lambda one: one != sealed[place]))
    with pytest.raises((SecretIntegrity, OrgKeyMissing)):
        STORE.open(sealed[:place] + char + sealed[place + 1 :], context)


@given(sealed=st.text(max_size=100))
def test_any_other_text_is_an_integrity_error_and_nothing_worse(sealed):
    with pytest.raises((SecretIntegrity, OrgKeyMissing)):
        STORE.open(sealed, SealContext("o", "m", 1, "x"))


def test_no_error_and_no_representation_shows_a_secret():
    context = SealContext("org", "model", 1, "x")
    with pytest.raises(SecretIntegrity) as caught:
        STORE.open(STORE.seal(SECRET, context), SealContext("org", "model", 2, "x"))
    error = caught.value
    assert error.__cause__ is None and SECRET not in repr((error, error.fields, error.hint)) + repr(STORE)


def test_a_new_kek_in_front_seals_and_the_old_one_still_opens():
    context = SealContext("org", "model", 1, "x")
    old = STORE.seal(SECRET, context)
    both = LocalKeyStore({"kek-b": bytes(32), "kek-a": bytes(range(32))})
    assert both.open(old, context) == SECRET
    assert both.seal(SECRET, context).split(":")[2] == "kek-b"
    assert both.fingerprint(SECRET, "org") == STORE.fingerprint(SECRET, "org")
    with pytest.raises(OrgKeyMissing):
        LocalKeyStore({"kek-b": bytes(32)}).open(old, context)


def test_fingerprints_tell_equal_keys_within_an_organisation_only():
    same, other = STORE.fingerprint(SECRET, "org"), STORE.fingerprint(SECRET + "x", "org")
    assert len(same) == 8 and same == STORE.fingerprint(SECRET, "org") != other
    assert STORE.fingerprint(SECRET, "another") != same


def test_the_key_file_is_made_once_private_and_outside_the_data(home):
    assert create_kek(home) and not create_kek(home)
    assert home.kek_file.stat().st_mode & 0o777 == 0o600
    assert home.data not in home.kek_file.parents
    assert open_keystore(home).name == "local"


@pytest.mark.parametrize("content", ["", "{}", '{"keks": []}', '{"keks": [{"id": "a", "key": "c2hvcnQ="}]}', "\x00\x01"])
def test_a_key_file_that_is_none_is_refused(home, content):
    create_kek(home)
    home.kek_file.write_text(content)
    with pytest.raises(KeyStoreDenied):
        open_keystore(home)


def test_a_lost_key_file_is_never_made_anew_silently_and_an_exposed_one_is_refused(home):
    with pytest.raises(KeyStoreUnreachable):
        open_keystore(home)
    assert not home.kek_file.exists()
    create_kek(home)
    home.kek_file.chmod(0o640)
    with pytest.raises(KeyStoreDenied) as caught:
        open_keystore(home)
    key = json.loads(home.kek_file.read_text())["keks"][0]["key"]
    assert key not in repr((caught.value, caught.value.hint, caught.value.fields))


@given(secret=st.text(string.ascii_letters + string.digits + "-_", max_size=120))
def test_masks_have_one_width_and_show_little(secret):
    shown = mask(secret)
    if len(secret) < 20:
        assert set(shown) == {"*"}
        return
    visible = shown.split("…")[0]
    assert secret.startswith(visible) and len(visible) <= 12
    prefix = visible[:-4]
    assert prefix == "" or prefix.endswith("-")
    assert len(shown) == len(mask("x" * 50))


def test_a_mask_shows_the_vendor_and_four_characters():
    assert mask(SECRET).startswith("sk-proj-0123…")
    assert mask("k" * 40).startswith("kkkk…")
