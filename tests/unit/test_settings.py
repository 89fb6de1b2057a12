import os
import stat
from pathlib import Path

import pytest

from iotflow.domain.limits import RatePolicy
from iotflow.errors import ConfigurationError
from iotflow.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("IOTFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_everything_is_embedded_by_default() -> None:
    settings = Settings.load()
    assert settings.store_url("registry") == "sqlite:///data/registry.db"
    assert settings.store_url("telemetry") == "sqlite:///data/telemetry.db"
    assert settings.store_url("cache") == "memory://"
    assert settings.store_url("events") == "sqlite:///data/events.db"


def test_a_policy_is_count_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTFLOW_RATE_LIMITS__REGISTER", "5/60")
    assert Settings.load().rate_limits.register_ == RatePolicy(5, 60)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IOTFLOW_PROT", "8000"),
        ("IOTFLOW_PORT", "eight"),
        ("IOTFLOW_PORT", "70000"),
        ("IOTFLOW_RATE_LIMITS__INGEST", "many"),
        ("IOTFLOW_RATE_LIMITS__INGEST", "10/0"),
        ("IOTFLOW_TELEMETRY__URL", "mysql://secret@host/db"),
        ("IOTFLOW_CACHE__URL", "not a url"),
        ("IOTFLOW_LOG__LEVEL", "loud"),
        ("IOTFLOW_INGEST__MAX_FUTURE_S", "-1"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as wrong:
        Settings.load()
    assert wrong.value.message.startswith(name)
    assert "\n" not in wrong.value.message
    assert "secret" not in wrong.value.message


def test_a_misspelt_setting_gets_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTFLOW_TELEMETRY__ULR", "sqlite:///x.db")
    with pytest.raises(ConfigurationError, match="did you mean IOTFLOW_TELEMETRY__URL"):
        Settings.load()


def test_secrets_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "iotflow_secret_key").write_text("s" * 40)
    monkeypatch.setenv("IOTFLOW_SECRETS_DIR", str(tmp_path / "run"))
    assert Settings.load().signing_secret() == "s" * 40


def test_the_embedded_secret_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path / "data")
    secret = settings.signing_secret()
    assert len(secret) >= 32
    assert Settings.load(data_dir=tmp_path / "data").signing_secret() == secret
    assert stat.S_IMODE((tmp_path / "data" / "secret_key").stat().st_mode) == 0o600


def test_a_shared_registry_needs_a_secret_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTFLOW_REGISTRY__URL", "postgresql://u:p@127.0.0.1/db")
    with pytest.raises(ConfigurationError, match="IOTFLOW_SECRET_KEY"):
        Settings.load().signing_secret()
    monkeypatch.setenv("IOTFLOW_SECRET_KEY", "short")
    with pytest.raises(ConfigurationError, match="32 characters"):
        Settings.load().signing_secret()
