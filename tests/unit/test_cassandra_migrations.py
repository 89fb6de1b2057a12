"""The files that make Cassandra's tables."""

from iotflow.stores.telemetry.cassandra.migrate import migration_files, statements_of


def test_versions_begin_with_one_and_leave_no_gap() -> None:
    files = migration_files()
    assert sorted(files) == list(range(1, len(files) + 1))


def test_each_statement_can_be_run_again_and_names_its_keyspace() -> None:
    for text in migration_files().values():
        found = statements_of(text)
        assert found
        for statement in found:
            assert "IF NOT EXISTS {keyspace}." in statement


def test_statements_end_with_semicolons_and_comments_are_left_out() -> None:
    assert statements_of("-- one; two\nA\n  b;\n\n-- c\nD;\n") == ["A\n  b", "D"]
    assert statements_of("-- nothing\n\n") == []
