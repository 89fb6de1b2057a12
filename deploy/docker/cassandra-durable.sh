#!/bin/bash
# Starts the image's Cassandra so that an acknowledged write is on disk. Its default, periodic,
# loses the last moments of a single node that is killed; the image has no variable for it.
set -euo pipefail
config="${CASSANDRA_CONF:-/etc/cassandra}/cassandra.yaml"
sed -i -E \
    -e 's/^commitlog_sync: periodic$/commitlog_sync: batch/' \
    -e 's/^commitlog_sync_period(_in_ms)?:/# &/' \
    "$config"
grep -q '^commitlog_sync: batch$' "$config" || {
    echo "commitlog_sync could not be set in $config" >&2
    exit 1
}
exec docker-entrypoint.sh "$@"
