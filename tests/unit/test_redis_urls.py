"""What cache URLs for Redis may say."""

from pathlib import Path

import pytest

from iotflow.errors import ConfigurationError
from iotflow.stores.cache.redis.urls import RedisUrl, parse_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisUrl("single", (("h", 6379),))),
        ("redis://h:1/", RedisUrl("single", (("h", 1),))),
        ("redis+cluster://h,[::1]:7", RedisUrl("cluster", (("h", 6379), ("::1", 7)))),
        ("redis://[::1]:7/2", RedisUrl("single", (("::1", 7),), options={"db": 2})),
        (
            "redis://u:p%40%2F@h/0",
            RedisUrl(
                "single", (("h", 6379),), options={"username": "u", "password": "p@/", "db": 0}
            ),
        ),
        (
            "rediss://:p@h?db=3",
            RedisUrl(
                "single",
                (("h", 6379),),
                tls=True,
                options={"password": "p", "db": 3, "ssl_check_hostname": True},
            ),
        ),
        (
            "redis+sentinel://:p@a,b:5/mine?db=1&sentinel_password=s",
            RedisUrl(
                "sentinel",
                (("a", 26379), ("b", 5)),
                "mine",
                options={"password": "p", "db": 1},
                sentinel_options={"password": "s"},
            ),
        ),
        (
            "redis+cluster://a:1,b?tls=true&tls_check_hostname=false",
            RedisUrl(
                "cluster",
                (("a", 1), ("b", 6379)),
                tls=True,
                options={"ssl_check_hostname": False},
            ),
        ),
        (
            "rediss+sentinel://a/mine",
            RedisUrl(
                "sentinel",
                (("a", 26379),),
                "mine",
                tls=True,
                options={"ssl_check_hostname": True},
                sentinel_options={"ssl_check_hostname": True, "ssl": True},
            ),
        ),
    ],
)
def test_a_url_is_understood(url: str, expected: RedisUrl) -> None:
    assert parse_url(url) == expected


def test_files_for_tls_are_named(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    query = "&".join(f"tls_{name}={tmp_path / name}" for name in ("ca", "cert", "key"))
    options = parse_url(f"rediss://h?{query}").options
    assert options["ssl_ca_certs"] == str(tmp_path / "ca")
    assert options["ssl_certfile"] == str(tmp_path / "cert")
    assert options["ssl_keyfile"] == str(tmp_path / "key")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis:h", "begins with"),
        ("amqp://:s3cret@h", "begins with"),
        ("redis://", "host"),
        ("redis://:s3cret@", "host"),
        ("redis://:s3cret@h:port", "host:port"),
        ("redis://:s3cret@h:70000", "host:port"),
        ("redis://:s3cret@a,b", "one host"),
        ("redis://:s3cret@h/name", "number"),
        ("redis+cluster://:s3cret@h/1", "database 0"),
        ("redis+sentinel://:s3cret@h", "service"),
        ("redis://:s3cret@h?timeout=1", "timeout"),
        ("redis://:s3cret@h?tls=maybe", "tls"),
        ("redis://:s3cret@h?sentinel_password=s3cret", "sentinel_password"),
        ("redis://:s3cret@h?tls_ca=x", "tls_ca"),
        ("rediss://:s3cret@h?tls_ca=/no/such/file", "tls_ca"),
    ],
)
def test_what_cannot_work_is_told_without_the_password(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        parse_url(url)
    assert said in told.value.message
    assert "s3cret" not in told.value.message


def test_a_url_that_is_shown_hides_the_password() -> None:
    assert "s3cret" not in repr(parse_url("redis+sentinel://:s3cret@h/x?sentinel_password=s3cret"))
