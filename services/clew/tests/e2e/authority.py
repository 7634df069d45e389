"""An authority that signs certificates, as the one of a cluster does."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs what it is asked to. Its own certificate is `pem`."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        certificate = self._certificate(self.name, self.key, days=3650).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = self._signed(certificate)

    def _certificate(self, subject, key, days):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
                .public_key(key.public_key()).serial_number(x509.random_serial_number())
                .not_valid_before(now - 30 * DAY).not_valid_after(now + days * DAY))

    def _signed(self, certificate):
        return certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, name="clew", days=30, ips=()):
        """A certificate for the name, valid for so many days from now, and its key, both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips)]
        certificate = self._certificate(_name(name), key, days).add_extension(
            x509.SubjectAlternativeName(names), critical=False)
        return self._signed(certificate), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption())


class Files:
    """Authorities, certificate and key in a folder, as one node or command has them."""

    def __init__(self, folder, authority, pair=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.trust(authority)
        self.show(pair or authority.sign())

    def trust(self, *authorities):
        self.ca.write_bytes(b"".join(each.pem for each in authorities))

    def show(self, pair):
        self.cert.write_bytes(pair[0])
        self.key.write_bytes(pair[1])

    @property
    def settings(self):
        return [f"rpc.tls.ca_file={self.ca}", f"rpc.tls.cert_file={self.cert}",
                f"rpc.tls.key_file={self.key}"]

    @property
    def flags(self):
        return ["--tls-ca", str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]
