"""Tests of the format of `API_KEYS`, of the keys that clients send, and of new keys."""

import hashlib
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.api_keys import SCOPES, ApiKey, find_key, new_key, parse_keys
from app.config.settings import Config
from app.core.errors import ConfigError

ALL = set(SCOPES)
HASH = hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize(
    ("text", "name", "scopes", "key"),
    [
        ("secret", "key-1", ALL, b"secret"),
        ("web=secret", "web", ALL, b"secret"),
        ("web:upload=secret", "web", {"upload"}, b"secret"),
        ("web:upload+list=secret", "web", {"upload", "list"}, b"secret"),
        ("Web.front_end-2=secret", "Web.front_end-2", ALL, b"secret"),
        (f"sha256:{HASH}", "key-1", ALL, b"secret"),
        (f"web:delete=sha256:{HASH.upper()}", "web", {"delete"}, b"secret"),
        ("c2VjcmV0LQ==", "key-1", ALL, b"c2VjcmV0LQ=="),
        ("web=c2VjcmV0LQ==", "web", ALL, b"c2VjcmV0LQ=="),
        ("c2VjcmV0LTE=", "key-1", ALL, b"c2VjcmV0LTE="),
        ("uQ8-mZ_r3vJYk1Wc0xTnBA==", "key-1", ALL, b"uQ8-mZ_r3vJYk1Wc0xTnBA=="),
        ("uQ8/mZ+r3vJYk1Wc0xTnBA==", "key-1", ALL, b"uQ8/mZ+r3vJYk1Wc0xTnBA=="),
        ("kXzQbnTrXyWcLmPoIuYtReWqAsE=", "key-1", ALL, b"kXzQbnTrXyWcLmPoIuYtReWqAsE="),
        ("web=not-base64=", "web", ALL, b"not-base64="),
        ("user:pass", "key-1", ALL, b"user:pass"),
        ("web:generate=a:b=c", "web", {"generate"}, b"a:b=c"),
        ("web=schlüssel", "web", ALL, "schlüssel".encode()),
        ("web=my secret", "web", ALL, b"my secret"),
        ("\nweb=secret\r\n", "web", ALL, b"secret"),
        ("web= secret", "web", ALL, b"secret"),
    ],
)
def test_each_format_is_parsed_into_a_key_with_a_name_and_scopes(
    text: str, name: str, scopes: set[str], key: bytes
) -> None:
    keys = parse_keys(text)
    found = find_key(keys, key)
    assert found is keys[0]
    assert (found.name, set(found.scopes)) == (name, scopes)
    assert found.length == (None if "sha256:" in text else len(key.decode()))
    assert find_key(keys, key + b"x") is None
    assert find_key(keys, HASH.encode()) is None


def test_keys_are_separated_by_commas_and_can_share_a_name() -> None:
    keys = parse_keys(" one , web=two,, web:list=three ")
    assert [key.name for key in keys] == ["key-1", "web", "web"]
    assert [find_key(keys, given) for given in (b"one", b"two", b"three")] == list(keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one,web:write=hush", "entry 2 has an unknown scope. Join some of upload, generate, delete, list"),
        ("web:=hush", "entry 1 has an unknown scope"),
        ("web:upload=hush,list=hush,web:upload+=hush", "entry 3 has an unknown scope"),
        ("one,web:upload,list=hush", "entry 2 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
        ("1hush:upload=hush", "entry 1 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
        ("my hush:upload+list=hush", "entry 1 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
        ("web:upload==hush", "entry 1 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
        ("web:write==hush", "entry 1 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
        ("web=sha256:hush", "entry 1 has sha256: without the 64 hex digits"),
        (f"sha256:{HASH}0", "entry 1 has sha256: without the 64 hex digits"),
        ("one,web=hush\x01hush", "entry 2 contains a line break or another control character"),
        ("=hush", "entry 1 is not KEY, NAME=KEY or NAME:SCOPE+SCOPE=KEY"),
    ],
)
def test_a_malformed_entry_is_reported_by_number_without_its_text(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"API_KEYS": text})
    assert f"API_KEYS=***: {message}" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        *("web = hush", "my web=hush", "1web=hush", "ül=hush", "web\t=hush", f"{'w' * 65}=hush"),
        *("1:pass=hush", "web/1=hush==", "my hush", "hüsh"),
    ],
)
def test_an_entry_with_a_mistyped_name_is_refused(entry: str) -> None:
    """If it were accepted, the whole entry would be a key with all scopes."""
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"API_KEYS": f"one,{entry}"})
    assert "API_KEYS=***: entry 2 is neither NAME=KEY nor KEY." in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hüsh" not in str(caught.value)


_NAMES_WITHOUT_KEY = [
    "web=",
    "web==",
    "web= ",
    "web:upload+generate=",
    "web:upload==",
    "web:=",
    "user:pass=",
    "=",
    "==",
]
_NAMES_WITHOUT_KEY += ["my web=", "1web=", "web/1=", "schlüssel=", "sha256:=", "a=", f"{'Long-Name' * 9}="]
_NAMES_WITHOUT_KEY += ["PublicSites=", "ProdWebApp4=", "WebApp4=", "Web.front_end-2=", "FrontendMobile4="]


@pytest.mark.parametrize("entry", _NAMES_WITHOUT_KEY)
def test_a_name_without_a_key_is_refused(entry: str) -> None:
    """`NAME=$KEY` becomes such an entry if KEY is not set."""
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"API_KEYS": f"one,{entry},two"})
    message = "entry 2 has no key after the =. If the key ends in =, write NAME=KEY."
    assert str(caught.value) == f"These settings can't be used:\n  API_KEYS=***: {message}"


@pytest.mark.fuzz
@given(st.binary(min_size=22, max_size=66), st.sampled_from([b64encode, urlsafe_b64encode]))
def test_random_keys_in_base64_need_no_name(data: bytes, encode: Callable[[bytes], bytes]) -> None:
    key = encode(hashlib.shake_128(data).digest(len(data)))
    assert find_key(parse_keys(key.decode()), key) is not None


@pytest.mark.parametrize("scopes", [SCOPES, ("upload",), ("list", "delete")])
def test_the_entry_of_a_new_key_accepts_the_key_without_containing_it(scopes: tuple[str, ...]) -> None:
    key, entry = new_key("web", scopes)
    found = find_key(parse_keys(entry), key.encode())
    assert found is not None
    assert (found.name, set(found.scopes)) == ("web", set(scopes))
    assert key not in entry
    assert len(key) >= 43
    assert new_key("web", scopes)[0] != key


def test_a_repr_contains_neither_key_nor_hash() -> None:
    text = repr(parse_keys("hush"))
    assert "hush" not in text
    assert repr(hashlib.sha256(b"hush").digest()) not in text


_KEYS = st.text(st.characters(codec="utf-8", exclude_characters=",\0\n"), min_size=1, max_size=40)
_ENTRIES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "web", "web:upload", "web:upload+list", "web:", "web:write", "1", "a b"]),
    st.sampled_from(["", "=", "=sha256:", "=="]),
    _KEYS | st.text("0123456789abcdefABCDEF", min_size=63, max_size=65),
)


def _read(text: str) -> tuple[ApiKey, ...] | str:
    """Return the keys in the setting, or the error message if it is invalid."""
    try:
        return Config.from_env({"API_KEYS": text}).api_keys
    except ConfigError as exc:
        return str(exc)


@pytest.mark.fuzz
@given(st.lists(_ENTRIES | st.text(st.characters(codec="utf-8"), max_size=60), max_size=4).map(",".join))
def test_no_error_message_quotes_the_text(text: str) -> None:
    keys = _read(text)
    if isinstance(keys, str):
        problem = r"entry \d [\w ,.=+:-]+|contains no key\. [\w ,:]+"
        refusal = rf"These settings can't be used:\n  API_KEYS=\*\*\*: ({problem})"
        assert re.fullmatch(refusal, keys)
    else:
        assert len(keys) == sum(bool(entry.strip()) for entry in text.split(","))
        assert all(key.scopes <= ALL and key.name and len(key.digest) == 32 for key in keys)


@pytest.mark.fuzz
@given(
    _KEYS.filter(lambda key: key == key.strip() and key[0] != "=" and not key.startswith("sha256:")).filter(
        lambda key: not re.search(r"[\x00-\x1f\x7f]", key)
    )
)
def test_only_the_right_key_is_found(key: str) -> None:
    keys = parse_keys(f"other=hash-of-nothing,web:list={key}")
    found = find_key(keys, key.encode())
    assert found is not None
    assert (found.name, set(found.scopes)) == ("web", {"list"})
    for wrong in (key + "x", key[:-1], f"web:list={key}", ""):
        assert find_key(keys, wrong.encode()) is None


def test_scopes_and_the_hash_are_case_insensitive() -> None:
    key, entry = new_key("web", ["upload", "list"])
    (parsed,) = parse_keys(entry.replace("sha256", "SHA256").replace("upload+list", "Upload+LIST"))
    assert (parsed.scopes, parsed.length) == (frozenset({"upload", "list"}), None)
    assert find_key([parsed], key.encode()) is parsed


@pytest.mark.parametrize(
    ("name", "scopes", "message"),
    [
        ("a=b", SCOPES, "'a=b' is not a key name"),
        ("web", ("upload", "write"), "Unknown scope. Join some of upload,"),
    ],
)
def test_a_new_key_needs_a_valid_name_and_known_scopes(
    name: str, scopes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        new_key(name, scopes)
