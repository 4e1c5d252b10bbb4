"""What looks like a credential is found, by name or by shape, wherever it is; what does not is left alone (R20)."""

import base64
import json
import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.core.secrets_in_text import without_secrets
from conventions.core.token_shapes import WHOSE
from conventions.security.credentials import (
    HIDDEN,
    SHORTEST,
    credentials_in,
    first_in,
    is_name_of_credential,
    may_hold_one,
    shape_of,
    without,
)

# In two parts each, so that no scanner takes this file for a leak.
LETTERS = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5kL7n"
SHAPES = {
    "AKIA" + "IOSFODNN7EXAMPLE": "an access key of AWS",
    "ASIA" + "IOSFODNN7EXAMPLE": "an access key of AWS",
    "ghp_" + LETTERS[:36]: "a token of GitHub",
    "ghs_" + LETTERS[:36]: "a token of GitHub",
    "github_pat_" + LETTERS: "a token of GitHub",
    "glpat-" + LETTERS[:20]: "a token of GitLab",
    "xoxb-" + "123456789012-" + LETTERS[:20]: "a token of Slack",
    "xapp-" + "1-A012-" + LETTERS[:20]: "a token of Slack",
    "sk_" + "live_" + LETTERS[:24]: "a key of Stripe",
    "rk_" + "test_" + LETTERS[:24]: "a key of Stripe",
    "whsec_" + LETTERS[:32]: "a key of Stripe",
    "AIza" + LETTERS[:35]: "a key of Google",
    "ya29." + LETTERS: "a key of Google",
    "SG." + LETTERS[:22] + "." + LETTERS: "a key of SendGrid",
    "npm_" + LETTERS[:36]: "a token of npm",
    "pypi-" + "AgE" + LETTERS + LETTERS: "a token of PyPI",
    "hf_" + LETTERS[:34]: "a token of Hugging Face",
    "sk-" + "ant-" + LETTERS: "a key of a language model",
    "sk-" + LETTERS + LETTERS[:8]: "a key of a language model",
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxIn0.c2ln": "a JSON web token",
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow==": "a private key",
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----": "a private key",
    "https://hooks." + "slack.com/services/T0/B0/abc": "a webhook of Slack",
    "DefaultEndpointsProtocol=https;Account" + "Key=" + LETTERS + "==": "a key of Azure",
    "Bearer " + LETTERS[:20]: "a bearer token",
    "bearer  " + LETTERS[:20]: "a bearer token",
    "Basic " + base64.b64encode(b"ann:secret").decode(): "a login of HTTP",
    "redis://:hunter2@localhost:6379/0": "an address with a password",
    "postgresql+psycopg://shop:p%40ss@db/shop": "an address with a password",
    "see https://ann:hunter2@example.com/a for it": "an address with a password",
    "https://ann:p!a$s&w*o=r%25d@[::1]:8080/": "an address with a password",
    "redis://default:123456@cache:6379": "an address with a password",
    "Basic " + base64.b64encode("ann:パス".encode()).decode().rstrip("="): "a login of HTTP",
    "sk-" + "or-v1-" + LETTERS: "a key of a language model",
    "aws_AKIA" + "IOSFODNN7EXAMPLE": "an access key of AWS",
}  # fmt: skip
NAMES = (
    "password", "Password", "new_password", "passwd", "pwd", "passphrase", "secret", "client_secret", "clientSecret", "token", "access_token",
    "accessToken", "refresh-token", "api_key", "apiKey", "apikey", "X-API-KEY", "private_key", "secretAccessKey", "signing_key", "Authorization",
    "credentials", "jwt", "password1", "newPassword2", "password_confirmation", "confirm_password", "api_keys", "secretKeys", "API_KEY2", "dbpassword", "passWord",
    "パスワード1", "パスワード確認", "パスワード\uff08確認\uff09", "シークレットキー", "暗号鍵", "API キー", "\uff21\uff30\uff29キー", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
    "管理者password", "パスワード", "新しいパスワード", "暗証番号", "秘密鍵", "アクセストークン", "APIキー",
)  # fmt: skip
HARMLESS_NAMES = (
    "password_id", "password_reset_at", "token_count", "tokens", "max_tokens", "page_token", "nextPageToken", "continuation_token", "device_token",
    "secretary", "passport_number", "compass", "key", "keys", "sort_key", "primary_key", "foreign_key", "public_key_id", "monkey", "keyword",
    "authorization_id", "author", "access", "api", "private", "user_id", "名前", "パスワード変更日時", "is_secret", "has_password",
    "requiresToken", "デバイストークン", "ページトークン", "confirm", "again", "2", "", "___",
)  # fmt: skip


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("within", ["{}", "{} ", "the key is {}, please", '"{}"', "x={}"])
def test_each_shape(text: str, within: str) -> None:
    """Alone, within a sentence, in quotes, behind a name; and the first look never says that there is none."""
    payload = {"rows": [{"note": within.format(text)}]}
    found = first_in(payload, json.dumps(payload, ensure_ascii=False).encode())
    assert found is not None, text
    assert (found.path, found.what, found.by_name) == ("rows[].note", SHAPES[text], False)


@pytest.mark.parametrize(
    "text", [text for text, what in SHAPES.items() if what in WHOSE.values() or "web token" in what]
)
def test_logs_leave_it_out(text: str) -> None:
    """The same shapes, wherever they stand in a line."""
    for line in (text, f"the key is {text}, please", f'{{"a": "{text}"}}', f"x_{text}" if "eyJ" not in text else text):
        assert text not in without_secrets(line)
        assert HIDDEN in without_secrets(line)


@pytest.mark.parametrize("name", NAMES)
def test_each_name(name: str) -> None:
    """Of a text that is not empty, and of texts in a list; of nothing else."""
    assert is_name_of_credential(name)
    for value, path in (("hunter2", f"login.{name}"), (["hunter2"], f"login.{name}[]")):
        payload = {"login": {name: value}}
        found = first_in(payload, json.dumps(payload, ensure_ascii=False).encode())
        assert found is not None
        assert (found.path, found.by_name) == (path, True)
    others: tuple[Any, ...] = ("", 7, None, True, {"id": 7})
    for other in others:
        assert list(credentials_in({"login": {name: other}})) == []


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_names_that_are_like_it(name: str) -> None:
    """An id of a password is none."""
    assert not is_name_of_credential(name)
    assert list(credentials_in({"login": {name: "hunter2"}})) == []


@pytest.mark.parametrize(
    "text",
    [
        "https://example.co.jp\uff08担当:ann@example.co.jp\uff09", "https://example.co.jp、Mail:info@example.co.jp", "https://example.co.jp,mailto:info@example.co.jp",
        "http://example.co.jp:8080、連絡先info@example.co.jp", "HP:https://example.co.jp|TEL:03-1234-5678|MAIL:info@example.co.jp",
        "https://example.com。質問は:help@example.com", "[site](https://example.com)[mail](mailto:ann@example.com)", "https://www.example.com:443,ann@example.com",
        "公式https://shop.jp(Twitter:公式@shop)", "docker://registry:5000@sha256:abcd", "basic information", "Basic Training 2026", "bearer of good news", "the bearer of 12345678901234567890 is", "https://example.com/a:b@c",
        "https://example.com:8080/x", "mail ann@example.com: see https://example.com", "eyJustATest", "AKIAxx", "sk-1", "xox", "ghp_short", "task-" + "a" * 48,
        "a token, a password and a secret are words", "-----BEGIN CERTIFICATE-----", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ann@host",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "data:image/png;base64,iVBORw0KGgo=", "パスワードを忘れた方へ",
    ],
)  # fmt: skip
def test_texts_that_are_like_it(text: str) -> None:
    """Words of a sentence, a public key, a hash, a picture."""
    assert shape_of(text) == ""


def ordinary(chance: random.Random) -> dict[str, Any]:
    """A payload as teams send them."""

    def text() -> Any:
        kinds = (
            lambda: str(UUID(int=chance.getrandbits(128))),
            lambda: f"{chance.getrandbits(256):064x}",
            lambda: base64.b64encode(chance.randbytes(chance.randrange(1, 400))).decode(),
            lambda: base64.urlsafe_b64encode(chance.randbytes(48)).decode(),
            lambda: f"user{chance.randrange(10**6)}@example.co.jp",
            lambda: f"https://example.com/orders/{chance.randrange(10**6)}?page={chance.randrange(9)}&sort=key",
            lambda: f"s3://bucket-{chance.randrange(99)}/reports/2026-11-{chance.randrange(1, 28):02}.csv",
            lambda: "2026-11-27T09:00:00+09:00",
            lambda: "東京都千代田区丸の内1-1 山田太郎様、ご注文の商品を発送しました。",
            lambda: "Dear customer, your password was changed. If it was not you, tell us: basic help is free.",
            lambda: "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=chance.randrange(4, 24))),
            lambda: chance.choice(["JPY", "tokyo", "en_US", "image/png", "sk_test", "key", "v1.2.3", "basic", "Mozilla/5.0 (X11; Linux x86_64)"]),
        )  # fmt: skip
        return chance.choice(kinds)()

    def value(depth: int) -> Any:
        kind = chance.randrange(6 if depth else 4)
        if kind == 0:
            return chance.choice([None, True, chance.randrange(10**9), round(chance.random() * 1000, 2)])
        if kind < 4:
            return text()
        if kind == 4:
            return [value(depth - 1) for _ in range(chance.randrange(5))]
        return {chance.choice(names): value(depth - 1) for _ in range(chance.randrange(6))}

    names = ("user_id", "order_id", "name", "note", "items", "sku", "count", "price", "address", "locale", "path", "url", "sha256", "page_token",
             "max_tokens", "sort_key", "primary_key", "author", "access", "device_token", "passport_number", "keyword", "title", "body", "html")  # fmt: skip
    return {chance.choice(names): value(3) for _ in range(chance.randrange(1, 8))}


def test_no_false_alarm() -> None:
    """In a thousand ordinary payloads, the same ones each time."""
    chance = random.Random(20)
    for _ in range(1000):
        payload = ordinary(chance)
        assert list(credentials_in(payload)) == [], payload


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(
    payload=st.dictionaries(st.text(), JSON, max_size=4), planted=st.sampled_from(sorted(SHAPES)), by_name=st.booleans()
)
def test_the_first_look_misses_nothing(payload: dict[str, Any], planted: str, by_name: bool) -> None:
    """What a whole look finds, the quick one does not rule out; what is hidden is gone, and its place cannot be sent."""
    payload = payload | ({"x": {"my_password": "hunter2"}} if by_name else {"x": [planted]})
    written = json.dumps(payload, ensure_ascii=False)
    assert list(credentials_in(payload))
    assert may_hold_one(written)
    hidden = without(payload)
    assert {one.what for one in credentials_in(hidden)} <= {"what was left out here before"}
    assert planted not in json.dumps(hidden) or by_name
    assert "hunter2" not in json.dumps(hidden) or not by_name


def test_a_key_that_is_one_itself() -> None:
    """Its path does not show it."""
    key = next(iter(SHAPES))
    (found,) = credentials_in({"by": {key: 7}})
    assert (found.path, found.what) == (f"by.{HIDDEN}", "an access key of AWS")
    assert without({"by": {key: 7}}) == {"by": {HIDDEN: 7}}


def test_what_is_allowed() -> None:
    """By its path, also in lists; the next one is found all the same."""
    payload = {"rows": [{"token": "a"}, {"token": "b"}], "secret": "c"}
    written = json.dumps(payload).encode()
    found = first_in(payload, written, ["rows[].token"])
    assert found is not None
    assert found.path == "secret"
    assert first_in(payload, written, ["rows[].token", "secret"]) is None


def test_a_long_text_takes_no_long_time() -> None:
    """200 KB of what almost begins like one: a pattern whose time grows with the square would outlast the time-out of the suite."""
    for text in (
        "http://a:" * 20_000,
        "Bearer " * 30_000,
        "basic QUFB" * 20_000,
        "eyJ" * 60_000,
        "a" * 200_000 + "://",
        "sk-" * 60_000,
    ):
        assert shape_of(text) == ""


@given(text=st.text(max_size=SHORTEST - 1) | st.from_regex(r"[a-z]{1,2}://[a-z]?:[a-z]@[a-z]", fullmatch=True))
def test_the_shortest_text_that_has_a_shape(text: str) -> None:
    """A shorter one has none, so nobody looks at it."""
    assert (shape_of(text) == "") or len(text) >= SHORTEST
