"""The main job on real input, on the four stores and on PostgreSQL alone."""

from collections.abc import Iterator

import pytest

from tests.process.conftest import register, served
from tests.process.test_main_job import FILES, Record, read_file, run_import
from tests.process.test_main_job import (
    test_a_year_thinned_for_a_chart as test_a_year_thinned_for_a_chart,
)
from tests.process.test_main_job import (
    test_all_daily_means as test_all_daily_means,
)
from tests.process.test_main_job import (
    test_an_export_is_the_history as test_an_export_is_the_history,
)
from tests.process.test_main_job import (
    test_count_minimum_and_maximum as test_count_minimum_and_maximum,
)
from tests.process.test_main_job import (
    test_daily_means_across_a_clock_change as test_daily_means_across_a_clock_change,
)
from tests.process.test_main_job import (
    test_every_hour_is_there_with_its_value as test_every_hour_is_there_with_its_value,
)
from tests.process.test_main_job import (
    test_importing_again_changes_nothing as test_importing_again_changes_nothing,
)
from tests.process.test_main_job import (
    test_the_latest_value as test_the_latest_value,
)
from tests.servers.stores import four_stores, postgres_only

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", params=[four_stores, postgres_only], ids=lambda it: it.__name__)
def record(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Record]:
    directory = tmp_path_factory.mktemp("main-job")
    file = directory / "seattle-temps.csv"
    file.write_bytes((FILES / file.name).read_bytes())
    with request.param() as settings, served(directory / "data", **settings) as service:
        credentials = register(service.url)
        assert "8,759" in run_import(service.url, credentials.api_key, file)
        yield Record(service.url, credentials, read_file(file))
