from __future__ import annotations

import hashlib
import hmac

import pytest
from pydantic import SecretStr

from server.access.keys import EVERYONE, KeyInfo, Keyring
from server.access.limits import UNLIMITED, KeyLimits
from server.config.schema import Config, Key, Server
from server.errors import NotAuthenticated

SECRET = "sk-rh-0a1b2c3d-" + "x" * 43
ADMIN = "sk-rh-ffffffff-" + "y" * 43
METRICS = "sk-rh-eeeeeeee-" + "z" * 43


def key(name: str, secret: str, *models: str) -> Key:
    return Key(name=name, key=SecretStr(secret), models=models or ("*",))


def bearer(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", f"Bearer {secret}".encode())]


@pytest.fixture
def ring() -> Keyring:
    keys = (key("a", SECRET, "guide", "openai/*"), key("b", "b" * 20))
    server = Server(keys=keys, admin_key=SecretStr(ADMIN), metrics_key=SecretStr(METRICS))
    return Keyring.from_config(Config(version=1, server=server))


def test_known_keys(ring: Keyring) -> None:
    assert ring.authenticate(bearer(SECRET)).name == "a"
    assert ring.authenticate([(b"authorization", b"bearer  " + b"b" * 20 + b" ")]).name == "b"
    assert ring.authenticate([(b"x-api-key", SECRET.encode())]).name == "a"
    # An Anthropic SDK sends both; the first of the two that is there counts.
    assert ring.authenticate([(b"x-api-key", b"?"), *bearer(SECRET)]).name == "a"


def test_keys_by_their_names(ring: Keyring) -> None:
    assert ring.names == ["a", "b"]
    assert ring.named("a") == ring.authenticate(bearer(SECRET))
    assert ring.named("c") is None
    assert Keyring([]).names == []


def test_a_key_given_as_its_digest() -> None:
    digest = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
    ring = Keyring([key("a", digest)])
    assert ring.authenticate(bearer(SECRET)).name == "a"
    with pytest.raises(NotAuthenticated):
        ring.authenticate(bearer(digest))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing_api_key"),
        ([(b"x-api-key", b" ")], "missing_api_key"),
        ([(b"x-api-key", b"a"), (b"x-api-key", b"a")], "missing_api_key"),
        ([(b"authorization", b"")], "malformed_api_key"),
        ([(b"authorization", b"Bearer")], "malformed_api_key"),
        ([(b"authorization", b"Bearer a b")], "malformed_api_key"),
        ([(b"authorization", b"Basic dTpw")], "malformed_api_key"),
        ([(b"authorization", SECRET.encode())], "malformed_api_key"),
        ([*bearer(SECRET), *bearer(SECRET)], "malformed_api_key"),
        (bearer(SECRET + "x"), "invalid_api_key"),
        (bearer(SECRET[:-1]), "invalid_api_key"),
        ([(b"authorization", b"Bearer \xff\xfe")], "invalid_api_key"),
        (bearer(ADMIN), "invalid_api_key"),
        (bearer(METRICS), "invalid_api_key"),
    ],
)
def test_what_is_no_key(ring: Keyring, headers: list[tuple[bytes, bytes]], code: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        ring.authenticate(headers)
    assert caught.value.code == code
    assert caught.value.status == 401
    assert caught.value.headers()["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ("sk-ant-api03-abc", "an Anthropic key"),
        ("sk-proj-abc", "an OpenAI key"),
        ("sk-svcacct-abc", "an OpenAI key"),
        ("sk-" + "aB3" * 16, "an OpenAI key"),
        ("sk-" + "0f" * 16, "a DeepSeek key"),
        ("sk-or-v1-abc", "an OpenRouter key"),
        ("hf_abc", "a Hugging Face token"),
        ("gsk_abc", "a Groq key"),
        ("xai-abc", "an xAI key"),
        ("AIzaSyabc", "a Google key"),
    ],
)
def test_a_providers_key_is_told_so_and_never_repeated(
    ring: Keyring, secret: str, what: str
) -> None:
    for authenticate, setting in (
        (ring.authenticate, "server.keys"),
        (ring.authenticate_admin, "server.admin_key"),
    ):
        with pytest.raises(NotAuthenticated) as caught:
            authenticate(bearer(secret))
        assert f"This looks like {what}. Roundhouse has keys of its own ({setting}" in str(
            caught.value
        )
        assert secret not in str(caught.value.body()) + str(caught.value.detail)


def test_without_keys_everybody_is_welcome_whatever_they_send() -> None:
    ring = Keyring([])
    assert ring.authenticate([]) is EVERYONE
    assert ring.authenticate(bearer("sk-proj-x")) is EVERYONE
    assert EVERYONE.allows("anything")
    assert EVERYONE.tenant is None


@pytest.mark.parametrize(
    ("model", "allowed"),
    [("guide", True), ("guide2", False), ("openai/x", True), ("openai", False), ("", False)],
)
def test_what_a_key_may_use(model: str, allowed: bool) -> None:
    assert KeyInfo("a", ("guide", "openai/*")).allows(model) is allowed


def test_a_tenant_is_stable_separate_and_not_the_keys_digest(ring: Keyring) -> None:
    a, b = ring.authenticate(bearer(SECRET)), ring.authenticate(bearer("b" * 20))
    assert a.tenant == Keyring([key("other", SECRET)]).authenticate(bearer(SECRET)).tenant
    assert a.tenant != b.tenant
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert a.tenant is not None
    assert a.tenant not in digest
    assert len(a.tenant) == 32


def test_limits_of_a_key() -> None:
    secrets = [letter * 20 for letter in "ab"]
    limited = Key(name="a", key=SecretStr(secrets[0]), rpm=6, tpm=900, max_in_flight=2)
    ring = Keyring([limited, key("b", secrets[1])])
    a, b = (ring.authenticate(bearer(secret)) for secret in secrets)
    assert a.limits == KeyLimits(rpm=6, tpm=900, max_in_flight=2)
    assert b.limits is EVERYONE.limits is UNLIMITED


def test_keys_are_not_kept(ring: Keyring) -> None:
    assert SECRET not in repr(ring)
    assert repr(ring) == "Keyring(a, b)"
    held = [getattr(ring, slot) for slot in Keyring.__slots__]
    assert SECRET not in repr(held)
    assert ADMIN not in repr(held)
    assert METRICS not in repr(held)


def test_a_miss_is_compared_like_a_hit(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(watched)
        new = staticmethod(hmac.new)

    monkeypatch.setattr("server.access.keys.hmac", Watched)
    ring.authenticate(bearer(SECRET))
    with pytest.raises(NotAuthenticated):
        ring.authenticate(bearer("nobody"))
    assert [len(one) for pair in compared for one in pair] == [32] * 4


# --- the admin API


def test_the_admin_key(ring: Keyring) -> None:
    ring.authenticate_admin(bearer(ADMIN))
    ring.authenticate_admin([(b"x-api-key", ADMIN.encode())])
    with pytest.raises(NotAuthenticated, match="No key was sent"):
        ring.authenticate_admin([])
    with pytest.raises(NotAuthenticated, match="This key is a client's"):
        ring.authenticate_admin(bearer(SECRET))
    with pytest.raises(NotAuthenticated, match="not one of this server's"):
        ring.authenticate_admin(bearer("x"))


def test_an_admin_api_without_a_key_is_open() -> None:
    Keyring([key("a", SECRET)]).authenticate_admin([])


def test_the_metrics_key_opens_the_metrics_and_nothing_else(ring: Keyring) -> None:
    ring.authenticate_admin(bearer(METRICS), metrics=True)
    ring.authenticate_admin(bearer(ADMIN), metrics=True)
    with pytest.raises(NotAuthenticated, match="opens the metrics alone"):
        ring.authenticate_admin(bearer(METRICS))
    for secret in (SECRET, "x"):
        with pytest.raises(NotAuthenticated):
            ring.authenticate_admin(bearer(secret), metrics=True)
    without = Keyring([], ADMIN)
    with pytest.raises(NotAuthenticated):
        without.authenticate_admin(bearer(METRICS), metrics=True)
