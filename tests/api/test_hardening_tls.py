"""TLS by the service itself."""

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from iotflow.cli.serve import tls_context
from iotflow.errors import ConfigurationError
from iotflow.settings import Settings, TlsSettings
from tests.process.conftest import START_TIMEOUT_S, environment, free_port


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    directory = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def served_by_tls(
    data_dir: Path, files: tuple[Path, Path], context: ssl.SSLContext
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    port = free_port()
    settings = {
        "IOTFLOW_TLS__CERTIFICATE": str(files[0]),
        "IOTFLOW_TLS__KEY": str(files[1]),
        "IOTFLOW_SERVER__HEADER_S": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "iotflow.cli.main", "serve"],
        env=environment(data_dir, port, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url, deadline = f"https://127.0.0.1:{port}", time.monotonic() + START_TIMEOUT_S
    try:
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            try:
                httpx.get(f"{url}/health/ready", verify=context).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_https_and_nothing_else(
    tmp_path: Path, files: tuple[Path, Path], authority: trustme.CA
) -> None:
    context = trusting(authority)
    with served_by_tls(tmp_path / "data", files, context) as (url, process):
        for path in ("/", "/api/v1/devices/credentials"):
            answer = httpx.get(url + path, verify=context)
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=ssl.create_default_context())
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))
        assert process.poll() is None
        process.terminate()
        printed, _ = process.communicate(timeout=20)
    assert printed.startswith(f"IoTFlow serves on {url} ")


@pytest.mark.parametrize("wrong", ["missing", "no certificate", "another's key"])
def test_files_that_cannot_serve_stop_the_start_with_a_line(
    tmp_path: Path, files: tuple[Path, Path], wrong: str
) -> None:
    certificate, key = files
    if wrong == "missing":
        certificate = tmp_path / "nowhere.pem"
    elif wrong == "no certificate":
        certificate = tmp_path / "empty.pem"
        certificate.write_text("nothing")
    else:
        key = tmp_path / "other.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(key)
    settings = {"IOTFLOW_TLS__CERTIFICATE": str(certificate), "IOTFLOW_TLS__KEY": str(key)}
    ended = subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", "serve"],
        env=environment(tmp_path / "data", free_port(), **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("iotflow: IOTFLOW_TLS__CERTIFICATE: ")
    assert len(ended.stderr.splitlines()) == 1


def test_nothing_older_than_tls_1_2(files: tuple[Path, Path]) -> None:
    context = tls_context(TlsSettings(certificate=files[0], key=files[1]))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_certificate_without_its_key_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("IOTFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IOTFLOW_TLS__CERTIFICATE", "certificate.pem")
    with pytest.raises(ConfigurationError, match="IOTFLOW_TLS__KEY"):
        Settings.load()
