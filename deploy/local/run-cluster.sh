#!/usr/bin/env bash
# Starts the local servers, then runs a command on them. Store URLs that are in the environment
# already win; the signing secret is made once and kept beside the servers' data.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=${LOCAL_SERVERS_DIR:-$here/../../.servers}
settings=$(python3 "$here/servers.py" start)
while IFS='=' read -r name url; do
    [ -n "${!name:-}" ] || export "$name=$url"
done <<<"$settings"
if [ -z "${IOTFLOW_SECRET_KEY:-}" ]; then
    secret=$directory/secret_key
    [ -s "$secret" ] || (umask 077 && python3 -c 'import secrets; print(secrets.token_urlsafe(48))' >"$secret")
    IOTFLOW_SECRET_KEY=$(cat "$secret")
    export IOTFLOW_SECRET_KEY
fi
exec "$@"
