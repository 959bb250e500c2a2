"""Tokens: guest sessions and remembered devices as JWTs (RFC 7519, RFC 8725), seat claims sealed with Fernet.

Hides keys and their rotation: the first key signs, every key is accepted, each by its id.

Everybody who connects presents a token, and for PyJWT to read one is a fifth of what connecting takes. So a token as
they are made here, and good, is known as such without it; whatever is anything else is PyJWT's to refuse, and to say
why.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from jwt.utils import base64url_decode, base64url_encode

from visavis.contract import Profile, SharedFile
from visavis.core.identity import Guest, new_id
from visavis.core.ports import Pass, Record

AUDIENCE = "visavis"
DEVICE_SECONDS = 400 * 24 * 3600
SEAL_SECONDS = 30 * 24 * 3600
"""Longer than any conversation: what was said of a file that has expired since must still get across."""
LEEWAY_SECONDS = 300
"""How far workers' clocks may be apart."""
LEAST_SECRET = 32
_GUEST, _DEVICE, _FILE, _PASS = (f"visavis-{kind}+jwt" for kind in ("guest", "device", "file", "pass"))
_IN_ALL = frozenset(("aud", "exp", "iat", "jti"))
"""Claims of every token."""


class TokenRefused(Exception):
    """Not a token of ours, or not of this kind. `expired` tells an old one from a false one."""

    def __init__(self, *, expired: bool = False) -> None:
        super().__init__("expired" if expired else "invalid")
        self.expired = expired


class SecretsInvalid(Exception):
    """The configured secrets cannot be used; says why."""


class Device(msgspec.Struct, frozen=True):
    """What a browser is remembered for: nothing but its answers, under a random id."""

    id: str
    adult: bool
    rules: int


class _Written(json.JSONEncoder):
    """Writes letters as themselves: escaped, a long name in an eastern script would make a token too long."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


class _Header(msgspec.Struct, frozen=True):
    kid: str = ""


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(dict[str, Any])


def _beginning(kind: str, key_id: str) -> str:
    """A token's first segment, as it is made here."""
    header = json.dumps({"alg": "HS256", "kid": key_id, "typ": kind}, separators=(",", ":"), cls=_Written)
    return base64url_encode(header.encode()).decode()


class _Claim(msgspec.Struct, frozen=True, array_like=True):
    guest: str
    record: Record


def read_secrets(text: str) -> dict[str, bytes]:
    """Parse `id:secret id:secret`. Raises SecretsInvalid."""
    found: dict[str, bytes] = {}
    for item in text.split():
        key_id, _, secret = item.partition(":")
        if not key_id or len(secret) < LEAST_SECRET:
            raise SecretsInvalid(f"write each secret as id:secret with at least {LEAST_SECRET} characters")
        if key_id in found:
            raise SecretsInvalid(f"two secrets have the id {key_id}")
        found[key_id] = secret.encode()
    if not found:
        raise SecretsInvalid("there is no secret")
    return found


def kept_secrets(path: Path) -> dict[str, bytes]:
    """The secrets in a private file, made on first use."""
    if not path.exists():
        made = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"k1:{secrets.token_urlsafe(48)}\n")
        try:
            # Several workers may begin at once: the first whole file wins.
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return read_secrets(path.read_text(encoding="ascii"))


class Tokens:
    """Makes and reads every token."""

    def __init__(self, keys: dict[str, bytes], session_seconds: int) -> None:
        self._keys = keys
        self._first = next(iter(keys))
        self._session_seconds = session_seconds
        self._begun = {
            kind: {_beginning(kind, key_id): key for key_id, key in keys.items()}
            for kind in (_GUEST, _DEVICE, _FILE, _PASS)
        }
        """How tokens of each kind begin, with the keys that those are signed with."""
        self._fernet = MultiFernet(
            [
                Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"visavis seat claim\0" + key).digest()))
                for key in keys.values()
            ]
        )

    def _sign(self, kind: str, claims: dict[str, object], seconds: int) -> tuple[str, int]:
        now = int(time.time())
        payload = {**claims, "aud": AUDIENCE, "iat": now, "exp": now + seconds, "jti": new_id()}
        token = jwt.encode(
            payload,
            self._keys[self._first],
            algorithm="HS256",
            headers={"kid": self._first, "typ": kind},
            json_encoder=_Written,
        )
        return token, (now + seconds) * 1000

    def _read(self, kind: str, token: str, needed: Sequence[str]) -> dict[str, object]:
        known = self._known(kind, token)
        # Of what a claim may say elsewhere, only what is said here is looked at.
        if known is not None and known.keys() == _IN_ALL.union(needed):
            return known
        return self._examine(kind, token, needed)

    def _known(self, kind: str, token: str) -> dict[str, object] | None:
        """The claims of a token as they are made here, if it is good; None of any other, whatever is the matter.

        Nothing of it is interpreted before its signature is verified; and that of one that begins otherwise is not.
        """
        said, _, signature = token.rpartition(".")
        key = self._begun[kind].get(said.partition(".")[0])
        if key is None or not token.isascii():
            return None
        right = base64.urlsafe_b64encode(hmac.digest(key, said.encode(), "sha256")).rstrip(b"=")
        if not hmac.compare_digest(right, signature.encode()):
            return None
        try:
            claims = _claims.decode(base64url_decode(said.partition(".")[2]))
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return None
        begins, ends, now = claims.get("iat"), claims.get("exp"), time.time()
        good = (
            claims.get("aud") == AUDIENCE
            and type(claims.get("jti")) is str
            and type(begins) is int
            and type(ends) is int
            and begins <= now + LEEWAY_SECONDS
            and ends > now - LEEWAY_SECONDS
        )
        return claims if good else None

    def _examine(self, kind: str, token: str, needed: Sequence[str]) -> dict[str, object]:
        try:
            # Only the key's id is read before the signature is verified: the key is chosen by us, the algorithm fixed,
            # and nothing else in the header is acted upon.
            key = self._keys.get(_header.decode(base64url_decode(token.partition(".")[0])).kid)
            if key is None:
                raise TokenRefused
            found = jwt.decode_complete(
                token,
                key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iat", "jti", *needed]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenRefused(expired=True) from None
        except (jwt.InvalidTokenError, msgspec.MsgspecError, RecursionError, TypeError, ValueError):
            raise TokenRefused from None
        if found["header"].get("typ") != kind or "crit" in found["header"]:
            raise TokenRefused
        return dict(found["payload"])

    def for_guest(self, guest: Guest) -> tuple[str, int]:
        """A session token and when it expires, ms since the epoch."""
        claims: dict[str, object] = {
            "sub": guest.id,
            "dev": guest.device,
            "name": guest.profile.name,
            "hue": guest.profile.hue,
        }
        return self._sign(_GUEST, claims, self._session_seconds)

    def guest(self, token: str) -> Guest:
        """The guest of a session token. Raises TokenRefused."""
        payload = self._read(_GUEST, token, ["sub", "dev", "name", "hue"])
        try:
            return msgspec.convert(
                {
                    "id": payload["sub"],
                    "device": payload["dev"],
                    "profile": Profile(name=str(payload["name"]), hue=int(str(payload["hue"]))),
                },
                Guest,
            )
        except (msgspec.ValidationError, ValueError):
            raise TokenRefused from None

    def for_device(self, device: Device) -> str:
        """A token that remembers a browser."""
        token, _ = self._sign(
            _DEVICE,
            {"sub": device.id, "adult": device.adult, "rules": device.rules},
            DEVICE_SECONDS,
        )
        return token

    def device(self, token: str) -> Device:
        """The browser of a device token. Raises TokenRefused."""
        payload = self._read(_DEVICE, token, ["sub", "adult", "rules"])
        try:
            return msgspec.convert({"id": payload["sub"], "adult": payload["adult"], "rules": payload["rules"]}, Device)
        except msgspec.ValidationError:
            raise TokenRefused from None

    def seal_file(self, file: SharedFile, conversation: str, guest: str) -> str:
        """What lets this guest say a file that was found good in this conversation."""
        told = {name: value for name, value in msgspec.to_builtins(file).items() if value is not None}
        token, _ = self._sign(_FILE, {"sub": guest, "in": conversation, "file": told}, SEAL_SECONDS)
        return token

    def shared(self, seal: str, conversation: str, guest: str) -> SharedFile | None:
        """The file of a seal, or None if it is not ours or for somebody, or somewhere, else."""
        try:
            payload = self._read(_FILE, seal, ["sub", "in", "file"])
            file = msgspec.convert(payload["file"], SharedFile)
        except (TokenRefused, msgspec.ValidationError):
            return None
        return file if (payload["in"], payload["sub"]) == (conversation, guest) else None

    def let_in(self, given: Pass, seconds: int) -> str:
        """What opens a file's address for a while."""
        claims: dict[str, object] = {"file": given.file, "sub": given.guest, "in": given.conversation}
        token, _ = self._sign(_PASS, claims, seconds)
        return token

    def admits(self, token: str) -> Pass | None:
        """What such a token opens, or None if it is not ours or too old."""
        try:
            payload = self._read(_PASS, token, ["file", "sub", "in"])
            return msgspec.convert(
                {"file": payload["file"], "guest": payload["sub"], "conversation": payload["in"]}, Pass
            )
        except (TokenRefused, msgspec.ValidationError):
            return None

    def seal(self, record: Record, guest: str) -> str:
        """A claim to a seat: unreadable outside, since it names the other members."""
        return self._fernet.encrypt(msgspec.msgpack.encode(_Claim(guest, record))).decode()

    def unseal(self, claim: str, guest: str, oldest_seconds: int) -> Record | None:
        """The conversation a claim restores, or None if it is not this guest's, too old or not ours."""
        try:
            # Not with a `ttl`: that would also refuse a claim sealed by a worker whose clock is a minute ahead.
            opened = self._fernet.decrypt(claim.encode())
            if self._fernet.extract_timestamp(claim.encode()) < time.time() - oldest_seconds - LEEWAY_SECONDS:
                return None
            read = msgspec.msgpack.decode(opened, type=_Claim)
        except (InvalidToken, msgspec.MsgspecError, UnicodeEncodeError):
            return None
        return read.record if read.guest == guest and read.record.seat_of(guest) is not None else None
