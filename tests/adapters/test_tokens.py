"""Tokens against the known ways to forge them (RFC 8725), and seat claims against those who would sit elsewhere."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from visavis.adapters.tokens import Device, SecretsInvalid, TokenRefused, Tokens, kept_secrets, read_secrets
from visavis.contract import Profile, SharedFile, Why
from visavis.core.files import tidy
from visavis.core.identity import Guest, new_id
from visavis.core.ports import Member, Pass, Record

OLD, NEW = b"o" * 40, b"n" * 40
HOUR = 3600


def new_guest() -> Guest:
    return Guest(new_id(), new_id(), Profile(name="Amber Fox", hue=15))


@pytest.fixture
def tokens() -> Tokens:
    return Tokens({"new": NEW, "old": OLD}, HOUR)


def encoded(part: Any) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, payload: Any, key: bytes = NEW) -> str:
    """A token put together by hand, so that no library keeps us from anything."""
    said = f"{encoded(header)}.{encoded(payload)}"
    return f"{said}.{encoded(hmac.new(key, said.encode(), hashlib.sha256).digest())}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def refused(tokens: Tokens, token: str) -> str:
    """How a guest's token is refused: "expired" or "invalid"."""
    with pytest.raises(TokenRefused) as raised:
        tokens.guest(token)
    return "expired" if raised.value.expired else "invalid"


def test_a_guest_comes_back_as_the_same_guest(tokens: Tokens) -> None:
    """With the name, the colour and the device, for as long as was said."""
    guest = new_guest()
    token, expires_at = tokens.for_guest(guest)
    assert tokens.guest(token) == guest
    assert abs(expires_at / 1000 - time.time() - HOUR) < 5
    assert tokens.for_guest(guest)[0] != token


def test_a_good_token_of_ours_needs_no_library_to_be_known(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is five times as fast, for everybody who connects; and of the same claims, it knows the same."""
    guest, device = new_guest(), Device(new_id(), adult=True, rules=1)
    given = Pass(new_id(), guest.id, new_id())
    file = SharedFile(id=new_id(), kind="document", name="ünï.txt", type="text/plain", bytes=5, expires_at=1)
    of_guest, of_device, let_in = tokens.for_guest(guest)[0], tokens.for_device(device), tokens.let_in(given, HOUR)
    seal = tokens.seal_file(file, "there", guest.id)
    for able in (True, False):
        if not able:
            monkeypatch.setattr(jwt, "decode_complete", None)
        assert tokens.guest(of_guest) == guest
        assert tokens.device(of_device) == device
        assert tokens.admits(let_in) == given
        assert tokens.shared(seal, "there", guest.id) == file
        if able:
            monkeypatch.setattr(Tokens, "_known", lambda *_: None)
            assert (tokens.guest(of_guest), tokens.device(of_device)) == (guest, device)
            monkeypatch.undo()


def test_a_token_made_by_hand_is_as_good_as_ours(tokens: Tokens) -> None:
    """So that the forgeries below fail for the reason they are about."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    assert tokens.guest(signed(header, payload)).id == payload["sub"]


def test_the_algorithm_is_ours_to_choose(tokens: Tokens) -> None:
    """None, another hash, or a public key used as a secret."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    for none in ("none", "None", "NONE", "", None):
        unsigned = f"{encoded({**header, 'alg': none})}.{encoded(payload)}."
        assert refused(tokens, unsigned) == "invalid"
        assert refused(tokens, signed({**header, "alg": none}, payload)) == "invalid"
    for other in ("HS384", "HS512"):
        assert refused(tokens, jwt.encode(payload, NEW * 2, algorithm=other, headers=header)) == "invalid"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = Tokens({"new": public}, HOUR)
    said = f"{encoded({**header, 'alg': 'RS256'})}.{encoded(payload)}"
    signature = private.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert refused(confused, f"{said}.{encoded(signature)}") == "invalid"
    assert refused(tokens, signed({**header, "alg": "RS256"}, payload)) == "invalid"


def test_nothing_in_the_header_is_acted_upon(tokens: Tokens) -> None:
    """Unknown or strange key ids, keys brought along, addresses of keys, and extensions to understand."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    own = {"kty": "oct", "k": encoded(b"mine" * 10)}
    for changes in (
        {"kid": "unknown"},
        {"kid": ""},
        {"kid": None},
        {"kid": ["new"]},
        {"kid": {"new": 1}},
        {"kid": "../../dev/null"},
        {"crit": ["exp"]},
        {"crit": []},
        {"typ": "JWT"},
        {"typ": None},
    ):
        assert refused(tokens, signed({**header, **changes}, payload)) == "invalid", changes
    missing = {name: value for name, value in header.items() if name != "kid"}
    assert refused(tokens, signed(missing, payload)) == "invalid"
    brought = {**header, "jwk": own, "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    assert refused(tokens, signed(brought, payload, b"mine" * 10)) == "invalid"


def test_a_header_too_deep_to_read_is_refused_like_any_other(tokens: Tokens) -> None:
    """It takes no key to send one, so it must not be an error of ours."""
    for deep in (b"[" * 50_000, b'{"kid":"new","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        assert refused(tokens, f"{encoded(deep)}.{encoded({})}.") == "invalid"


def test_a_token_is_for_this_service_and_for_one_purpose(tokens: Tokens) -> None:
    """A device's is no guest's, a guest's no device's, and another audience's is neither."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    for audience in ("another", None, ["another"], ""):
        assert refused(tokens, signed(header, {**payload, "aud": audience})) == "invalid"
    device = tokens.for_device(Device(new_id(), adult=True, rules=1))
    assert refused(tokens, device) == "invalid"
    with pytest.raises(TokenRefused):
        tokens.device(tokens.for_guest(new_guest())[0])
    device_header, device_payload = parts(device)
    assert refused(tokens, signed(device_header, payload)) == "invalid"
    assert refused(tokens, signed(header, device_payload)) == "invalid"


def test_every_claim_is_needed_and_of_its_kind(tokens: Tokens) -> None:
    """None may be missing, and none of another type or out of bounds."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    for name in payload:
        assert refused(tokens, signed(header, {k: v for k, v in payload.items() if k != name})) == "invalid", name
    for changes in (
        {"sub": 1},
        {"sub": None},
        {"dev": ["x"]},
        {"hue": "red"},
        {"hue": None},
        {"exp": "soon"},
        {"exp": None},
        {"iat": "x"},
        {"iat": time.time() + 10 * HOUR},
        {"nbf": time.time() + 10 * HOUR},
    ):
        assert refused(tokens, signed(header, {**payload, **changes})) == "invalid", changes
    for payload_text in (b"[]", b"null", b"1", b"{", b""):
        assert refused(tokens, signed(header, payload_text)) == "invalid"


def test_an_old_token_is_told_from_a_false_one(tokens: Tokens) -> None:
    """A few minutes of difference between two machines' clocks do not matter."""
    header, payload = parts(tokens.for_guest(new_guest())[0])
    assert refused(tokens, signed(header, {**payload, "exp": int(time.time()) - 310})) == "expired"
    assert tokens.guest(signed(header, {**payload, "exp": int(time.time()) - 200}))
    assert refused(tokens, signed(header, {**payload, "exp": 1}, OLD)) == "invalid"


def test_every_change_is_noticed(tokens: Tokens) -> None:
    """Of any character; and what is no token at all is refused like any other."""
    token, _ = tokens.for_guest(new_guest())
    for place in range(0, len(token) - 1, 7):
        if token[place] != ".":
            changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
            assert refused(tokens, changed) == "invalid", place
    for other in ("", ".", "..", "...", "x", "é.é.é", "\0", "\ud800", "a" * 100_000, token + ".x", f" {token}"):
        assert refused(tokens, other) == "invalid", other[:10]


def test_keys_rotate_without_anybody_noticing() -> None:
    """The first signs, all are accepted; one that was taken out is not."""
    guest = new_guest()
    record = record_of(guest, new_guest())
    before = Tokens({"old": OLD}, HOUR)
    during = Tokens({"new": NEW, "old": OLD}, HOUR)
    after = Tokens({"new": NEW}, HOUR)
    token, claim = before.for_guest(guest)[0], before.seal(record, guest.id)
    assert during.guest(token) == guest
    assert during.unseal(claim, guest.id, HOUR) == record
    assert refused(after, token) == "invalid"
    assert after.unseal(claim, guest.id, HOUR) is None
    assert after.guest(during.for_guest(guest)[0]) == guest
    swapped = Tokens({"old": NEW}, HOUR)
    assert refused(swapped, token) == "invalid"


def test_a_device_is_remembered_with_its_answers(tokens: Tokens) -> None:
    """And nothing else is in its token."""
    device = Device(new_id(), adult=True, rules=3)
    token = tokens.for_device(device)
    assert tokens.device(token) == device
    assert set(parts(token)[1]) == {"sub", "adult", "rules", "aud", "iat", "exp", "jti"}


# --------------------------------------------------------------------------- claims to a seat


def record_of(*guests: Guest) -> Record:
    members = tuple(Member(g.id, g.device, g.profile) for g in guests)
    return Record(new_id(), "text", members, Why(interests=("jazz",), languages=("en",)), 1)


def test_a_claim_is_one_guest_s_and_unreadable(tokens: Tokens) -> None:
    """The other member cannot use it, nor anybody learn from it who that is."""
    a, b = new_guest(), new_guest()
    record = record_of(a, b)
    claim = tokens.seal(record, a.id)
    assert tokens.unseal(claim, a.id, HOUR) == record
    assert tokens.unseal(claim, b.id, HOUR) is None
    opened = base64.urlsafe_b64decode(claim)
    for private in (b.id, b.device, b.profile.name, record.id):
        assert private.encode() not in opened


def test_a_claim_ends(tokens: Tokens) -> None:
    """With the session it belongs to, give or take what clocks differ by."""
    a = new_guest()
    record = record_of(a, new_guest())
    key = base64.urlsafe_b64encode(hashlib.sha256(b"visavis seat claim\0" + NEW).digest())
    opened = Fernet(key).decrypt(tokens.seal(record, a.id).encode())
    old = Fernet(key).encrypt_at_time(opened, int(time.time()) - HOUR - 310).decode()
    assert tokens.unseal(old, a.id, HOUR) is None
    assert tokens.unseal(old, a.id, 2 * HOUR) == record


def test_a_false_claim_is_none(tokens: Tokens) -> None:
    """Changed, cut, foreign, a token of another kind, or one for a guest who is no member."""
    a, stranger = new_guest(), new_guest()
    record = record_of(a, new_guest())
    claim = tokens.seal(record, a.id)
    for false in (claim[:-4], claim[:40] + "AAAA" + claim[44:], "", "x", "é", "\ud800", tokens.for_guest(a)[0]):
        assert tokens.unseal(false, a.id, HOUR) is None, false[:10]
    assert Tokens({"k": b"x" * 40}, HOUR).unseal(claim, a.id, HOUR) is None
    assert tokens.unseal(tokens.seal(record, stranger.id), stranger.id, HOUR) is None


# --------------------------------------------------------------------------- files


def shared(name: str = "a.txt") -> SharedFile:
    return SharedFile(id=new_id(), kind="document", name=name, type="text/plain", bytes=5, expires_at=1)


@pytest.mark.parametrize("letter", ["x", "é", "ש", "語", "💩"])
def test_the_largest_file_there_can_be_still_has_a_seal_that_fits(letter: str) -> None:
    """A message carries it as a Token, of 2048 characters at most."""
    file = SharedFile(
        id=new_id(),
        kind="document",
        name=tidy(letter * 500),
        type="t" * 100,
        bytes=2**31 - 1,
        expires_at=2**53 - 1,
        width=65_535,
        height=65_535,
        seconds=123456.789012345,
        waveform="w" * 100,
        blur="b" * 600,
        thumb=True,
    )
    tokens = Tokens({"a key's id that is quite long": NEW}, HOUR)
    conversation, guest = new_id(), new_id()
    seal = tokens.seal_file(file, conversation, guest)
    assert len(seal) <= 2048
    assert tokens.shared(seal, conversation, guest) == file


def test_a_seal_is_for_one_guest_in_one_conversation_and_a_pass_is_no_seal(tokens: Tokens) -> None:
    """Nor is any other token that this service signs, nor one that somebody else signs."""
    file, conversation, guest = shared(), new_id(), new_guest()
    seal = tokens.seal_file(file, conversation, guest.id)
    assert tokens.shared(seal, conversation, guest.id) == file
    assert tokens.shared(seal, new_id(), guest.id) is None
    assert tokens.shared(seal, conversation, new_id()) is None
    given = Pass(file.id, guest.id, conversation)
    pass_ = tokens.let_in(given, HOUR)
    assert tokens.admits(pass_) == given
    session, _ = tokens.for_guest(guest)
    foreign = Tokens({"new": b"x" * 40}, HOUR)
    for false in (pass_, session, seal[:-2] + "AA", foreign.seal_file(file, conversation, guest.id), "", "a.b.c"):
        assert tokens.shared(false, conversation, guest.id) is None
    for false in (seal, session, pass_[:-2] + "AA", foreign.let_in(given, HOUR), tokens.let_in(given, -301), "é"):
        assert tokens.admits(false) is None


# --------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("text", ["", "   ", "k1", "k1:", "k1:short", ":" + "x" * 40, "k1:" + "x" * 31, "x" * 60])
def test_a_weak_secret_is_refused(text: str) -> None:
    """Rather than guessed by somebody later; and the message does not repeat it."""
    with pytest.raises(SecretsInvalid) as raised:
        read_secrets(text)
    assert "x" * 31 not in str(raised.value)


def test_one_id_for_two_secrets_is_refused() -> None:
    """Tokens of the one that was dropped would be called forgeries."""
    with pytest.raises(SecretsInvalid):
        read_secrets(f"k1:{'x' * 40} k1:{'y' * 40}")


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    """Everyone who asks gets the same, and nobody else can read them."""
    path = tmp_path / "secrets"
    made = kept_secrets(path)
    assert kept_secrets(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secrets"]
    assert kept_secrets(tmp_path / "others") != made
