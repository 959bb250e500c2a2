"""A self-signed certificate, so that one machine can be tried out over https.

Hides X.509, and that a certificate from a real authority may lie at the same place: that is never touched.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("localhost", "127.0.0.1", "::1")
CERTIFICATE = "certificate.pem"
KEY = "key.pem"
DAYS = 397
"""What browsers accept at most."""
RENEWED_DAYS = 30
"""Before its end a new one is made."""
_ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Visavis, self-signed")])


def self_signed(folder: Path, names: Sequence[str] = ()) -> bool:
    """Have a certificate for this machine and these names or addresses in `folder`; whether it had to be made.

    One that was issued by somebody else stays, whatever its names.
    """
    wanted = [_named(name) for name in dict.fromkeys((*NAMES, *names))]
    certificate, key = folder / CERTIFICATE, folder / KEY
    if certificate.exists() and not _to_renew(certificate.read_bytes(), wanted if key.exists() else None):
        return False
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_ISSUER)
        .issuer_name(_ISSUER)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A machine whose clock is a little behind sees it as valid as well.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS - 1))
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, secret, 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _to_renew(pem: bytes, wanted: Sequence[x509.GeneralName] | None) -> bool:
    """Whether this is one of ours that has to be made anew; with no names, whichever of ours it is."""
    try:
        kept = x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        return False
    if kept.issuer != _ISSUER:
        return False
    names = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = kept.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return wanted is None or left < datetime.timedelta(days=RENEWED_DAYS) or not set(wanted) <= set(names)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a whole file in its place at once, so that nginx never reads half of it."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)
