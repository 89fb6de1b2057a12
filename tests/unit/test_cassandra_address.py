"""What the URL of a Cassandra store may say."""

from pathlib import Path

import pytest

from iotflow.errors import ConfigurationError
from iotflow.stores.telemetry.cassandra.address import Address, parse_address

PLAIN = Address(("h1",), 9042, "iotflow", None, None, None, (("", 3),), None, 0)


def test_defaults() -> None:
    assert parse_address("cassandra://h1/iotflow") == PLAIN


def test_everything() -> None:
    address = parse_address(
        "cassandra://me%40home:p%3Aw%2F@h1:9142,10.0.0.2,[2001:db8::3]:9142/ks_1"
        "?local_dc=eu-west&replication=eu-west:3,us:2&tls=insecure&ttl_s=3600"
    )
    assert address == Address(
        hosts=("h1", "10.0.0.2", "2001:db8::3"),
        port=9142,
        keyspace="ks_1",
        user="me@home",
        password="p:w/",
        local_dc="eu-west",
        replication=(("eu-west", 3), ("us", 2)),
        tls_roots="",
        ttl_s=3600,
    )


def test_days_stay_in_the_index_longer_than_their_points() -> None:
    assert parse_address("cassandra://h/k").index_ttl_s == 0
    assert parse_address("cassandra://h/k?ttl_s=3600").index_ttl_s == 3600 + 2 * 86_400
    longest = 20 * 365 * 86_400
    assert parse_address(f"cassandra://h/k?ttl_s={longest}").index_ttl_s == longest


def test_roots_come_from_a_file(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_text("PEM")
    assert parse_address(f"cassandra://h/k?tls={roots}").tls_roots == "PEM"
    with pytest.raises(ConfigurationError, match="tls"):
        parse_address(f"cassandra://h/k?tls={tmp_path / 'missing'}")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "hosts"),
        ("h1", "keyspace"),
        ("h1/", "keyspace"),
        ("h1/Iotflow", "keyspace"),
        ("h1/a;drop", "keyspace"),
        ("h1/k'", "keyspace"),
        (f"h1/{'k' * 49}", "keyspace"),
        ("h1,/k", "hosts"),
        ("h1 h2/k", "hosts"),
        ("h1:x/k", "hosts"),
        ("h1:0/k", "port"),
        ("h1:70000/k", "port"),
        ("h1:1,h2:2/k", "port"),
        ("h1/k?replication=0", "replication"),
        ("h1/k?replication=", "replication"),
        ("h1/k?replication=three", "replication"),
        ("h1/k?replication=a:1,2", "replication"),
        ("h1/k?replication=a':1", "replication"),
        ("h1/k?local_dc='", "local_dc"),
        ("h1/k?ttl_s=-1", "ttl_s"),
        ("h1/k?ttl_s=1e3", "ttl_s"),
        ("h1/k?ttl_s=999999999", "ttl_s"),
        ("h1/k?ttl=5", "parameters"),
        ("h1/k?ttl_s=1&ttl_s=2", "once"),
        ("h1/k?tls=yes", "tls"),
    ],
)
def test_what_is_wrong_is_named_and_the_password_is_not(rest: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        parse_address(f"cassandra://user:secret@{rest}")
    assert "secret" not in str(raised.value)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cassandra://"):
        parse_address("scylla://h1/k")
