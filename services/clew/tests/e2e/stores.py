"""Object stores to test against: two unrelated S3 servers and one of Azure's protocol."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest

from harness import free_ports

BIN = pathlib.Path(sys.executable).parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "clew"

# The account that every Azurite has, as its documentation prints it.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURITE_VERSION = "3.35.0"
S3RVER_VERSION = "3.7.1"


class Store:
    """A running store: settings for Clew, and its end."""

    def __init__(self, settings, process, folder, port=None):
        self.settings = settings
        self.port = port
        self.process = process
        self.folder = folder

    def close(self):
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(answers, process, timeout=60):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        assert process.poll() is None, f"the store ended: {process.returncode}"
        with contextlib.suppress(OSError):
            if answers():
                return
        time.sleep(0.1)
    raise AssertionError("the store does not answer")


def answers_http(url):
    def ask():
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
    return ask


def start(*command, env=None):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env={**os.environ, **(env or {})})


def s3_settings(port, prefix, key="key", secret="hush-hush", host="127.0.0.1"):
    return [
        f"bucket.url=s3://traces{prefix}",
        f"bucket.endpoint=http://{host}:{port}",
        "bucket.region=us-east-1",
        f"bucket.access_key_id={key}",
        f"bucket.secret_access_key={secret}",
    ]


def moto():
    """moto: an S3 in Python, with conditional writes."""
    [port] = free_ports(1)
    folder = tempfile.mkdtemp(prefix="clew-moto-")
    process = start(str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port))
    wait_until(answers_http(f"http://127.0.0.1:{port}/moto-api/"), process)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/traces", method="PUT", headers={
        "Authorization": "AWS4-HMAC-SHA256 Credential=key/20300101/us-east-1/s3/aws4_request, "
                         "SignedHeaders=host, Signature=none"})
    with urllib.request.urlopen(request, timeout=10):
        pass
    return Store(s3_settings(port, "/deep/prefix"), process, folder, port)


def s3rver():
    """s3rver: an S3 in JavaScript over a folder, without conditional writes."""
    program = node_program("s3rver", S3RVER_VERSION, "s3rver")
    [port] = free_ports(1)
    folder = tempfile.mkdtemp(prefix="clew-s3rver-")
    process = start("node", str(program), "-d", folder, "-a", "127.0.0.1", "-p", str(port),
                    "--silent", "--configure-bucket", "traces")
    wait_until(answers_http(f"http://127.0.0.1:{port}/"), process)
    return Store(s3_settings(port, "", "S3RVER", "S3RVER"), process, folder)


def node_program(package, version, program):
    """A program of an npm package, installed once."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    home = CACHE / package
    path = home / "node_modules" / ".bin" / program
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts",
             f"{package}@{version}"],
            cwd=home, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install {package}: {done.stderr[-500:]}")
    return path


def azurite():
    """Azurite: Azure's blob storage in JavaScript."""
    program = node_program("azurite", AZURITE_VERSION, "azurite-blob")
    [port] = free_ports(1)
    folder = tempfile.mkdtemp(prefix="clew-azurite-")
    process = start("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port),
                    "--location", folder, "--silent", "--skipApiVersionCheck")
    wait_until(answers_http(f"http://127.0.0.1:{port}/"), process)
    endpoint = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
    create_container(endpoint, "traces")
    return Store([
        "bucket.url=az://traces/some/prefix",
        f"bucket.endpoint={endpoint}",
        f"bucket.account_name={AZURITE_ACCOUNT}",
        f"bucket.account_key={AZURITE_KEY}",
    ], process, folder)


def create_container(endpoint, name):
    """A signed request of Azure's protocol (Shared Key)."""
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    canonical = "".join(f"{key}:{value}\n" for key, value in sorted(headers.items()))
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical + resource
    digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    headers["Content-Length"] = "0"
    url = f"{endpoint}/{name}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201, answer.status


STORES = {"moto": moto, "s3rver": s3rver, "azurite": azurite}
