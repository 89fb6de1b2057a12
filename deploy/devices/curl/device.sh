#!/bin/sh
# A device of IoTFlow in POSIX sh and curl: measures, keeps, sends, in this order.
#
#   IOTFLOW_URL=http://127.0.0.1:8000 IOTFLOW_KEY_FILE=key IOTFLOW_OUTBOX=outbox ./device.sh
#
# A reading is a file in the outbox, named by its moment, until the service has it; so it survives
# a restart, and is sent again with the same timestamp, which doubles nothing.
set -u

URL=${IOTFLOW_URL:?the address of the service}
KEY_FILE=${IOTFLOW_KEY_FILE:?a file with the device key, mode 0600}
OUTBOX=${IOTFLOW_OUTBOX:-outbox}
INTERVAL_S=${IOTFLOW_INTERVAL_S:-10}
OUTBOX_SIZE=${IOTFLOW_OUTBOX_SIZE:-1000}
LONGEST_WAIT_S=${IOTFLOW_LONGEST_WAIT_S:-300}
READINGS=${IOTFLOW_READINGS:-}   # for a trial run: stop after so many
# What prints the JSON object of a reading; replace it by your sensor.
SENSOR=${IOTFLOW_SENSOR:-}
[ -n "$SENSOR" ] || SENSOR='read -r load rest < /proc/loadavg; echo "{\"load_1m\": $load}"'

umask 077
mkdir -p "$OUTBOX" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 0' INT TERM
# From a file, not from the command line, where every user of the machine could read it.
printf 'X-API-Key: %s\n' "$(cat "$KEY_FILE")" > "$work/key"

last=0
failures=0
dropped=0

measure() {
    now=$(date +%s)000    # POSIX knows no milliseconds
    [ "$now" -gt "$last" ] || now=$((last + 1))
    last=$now
    data=$(sh -c "$SENSOR") || data=
    [ -n "$data" ] || { echo "the sensor said nothing" >&2; return 0; }
    # Whole or not at all: the name without .part is given to a finished file.
    printf '{"timestamp": %s, "data": %s}' "$now" "$data" > "$OUTBOX/$now.part"
    mv "$OUTBOX/$now.part" "$OUTBOX/$now.json"
    echo "measured $now $data"
    bound_outbox
}

bound_outbox() {
    set -- "$OUTBOX"/*.json
    while [ $# -gt "$OUTBOX_SIZE" ]; do
        rm -f "$1"
        dropped=$((dropped + 1))
        shift
    done
}

# Sends the oldest reading. 0: go on with the next; 1: wait for $pause seconds.
send_one() {
    status=$(curl --silent --max-time 10 --output "$work/answer" --dump-header "$work/headers" \
        --write-out '%{http_code}' --header "@$work/key" --header 'Content-Type: application/json' \
        --data-binary "@$1" "$URL/api/v1/telemetry") || status=000
    case $status in
        201 | 207) ;;
        400 | 413 | 415 | 422) echo "refused $1: $(cat "$work/answer")" >&2 ;;
        *) back_off; return 1 ;;
    esac
    rm -f "$1"
    failures=0
}

back_off() {
    pause=$((1 << (failures < 9 ? failures : 9)))
    [ "$pause" -le "$LONGEST_WAIT_S" ] || pause=$LONGEST_WAIT_S
    failures=$((failures + 1))
    asked=
    [ "$status" = 000 ] || asked=$(tr -d '\r' < "$work/headers" |
        awk 'tolower($1) == "retry-after:" && $2 ~ /^[0-9]+$/ { print $2 }')
    pause=${asked:-$pause}
    # Jitter: up to half on top, so that a fleet does not come back in one moment.
    random=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
    pause=$((pause + (pause + 1) * random / 131072))
    echo "status $status, again in $pause s" >&2
}

send_until=0
next_reading=0
while :; do
    now_s=$(date +%s)
    if [ "$READINGS" != 0 ] && [ "$now_s" -ge "$next_reading" ]; then
        measure
        next_reading=$((now_s + INTERVAL_S))
        [ -z "$READINGS" ] || READINGS=$((READINGS - 1))
    fi
    left=0
    for reading in "$OUTBOX"/*.json; do
        [ -e "$reading" ] || continue
        left=1
        [ "$(date +%s)" -ge "$send_until" ] || break
        send_one "$reading" || { send_until=$(($(date +%s) + pause)); break; }
        left=0
    done
    [ "$READINGS" != 0 ] || [ "$left" = 1 ] || break
    sleep 1
done
echo "dropped $dropped"
