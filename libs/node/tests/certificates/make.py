"""Makes the certificates of the tests anew (needs the package `cryptography`). The keys of the
authorities are thrown away."""

import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = pathlib.Path(__file__).parent
PEM = serialization.Encoding.PEM


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def january(year):
    return datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc)


class Authority:
    def __init__(self, label):
        self.label, self.key = label, ec.generate_private_key(ec.SECP256R1())
        own = self.certificate(name(label), self.key, 2100).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True)
        (HERE / f"{label}-ca.pem").write_bytes(own.sign(self.key, hashes.SHA256()).public_bytes(PEM))

    def certificate(self, subject, key, until):
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(name(self.label))
                .public_key(key.public_key()).serial_number(x509.random_serial_number())
                .not_valid_before(january(2015)).not_valid_after(january(until)))

    def pair(self, file, host="clew", until=2030, uses=()):
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.certificate(name(host), key, until).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        if uses:
            made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        (HERE / f"{self.label}-{file}.pem").write_bytes(
            made.sign(self.key, hashes.SHA256()).public_bytes(PEM) + key.private_bytes(
                PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


ours, others = Authority("ours"), Authority("others")
ours.pair("2030")
ours.pair("2060", until=2060)
ours.pair("expired", until=2020)
ours.pair("other-name", host="example.com")
ours.pair("server-only", uses=[ExtendedKeyUsageOID.SERVER_AUTH])
others.pair("2040", until=2040)
