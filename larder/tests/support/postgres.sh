#!/bin/sh
# Runs a PostgreSQL server in FOLDER on the loopback's PORT, as an unprivileged user where this is root;
# the database is `postgres`, the user too, without a password. Usage: postgres.sh FOLDER PORT [SETTING…]
set -eu
folder=$1 port=$2
shift 2

find_bin() {
  for bin in "${POSTGRES_BIN:-}" /usr/lib/postgresql/*/bin; do
    [ ! -x "$bin/initdb" ] || { echo "$bin"; return; }
  done
  dirname "$(command -v initdb)"
}
bin=$(find_bin) || {
  echo 'postgres.sh: no `initdb`; hint: `apt-get install postgresql`, or its folder in POSTGRES_BIN' >&2
  exit 127
}
as=''
if [ "$(id -u)" = 0 ]; then
  chown -R postgres "$folder"
  as='setpriv --reuid=postgres --regid=postgres --clear-groups --'
fi
cd "$folder"
if [ ! -e data ]; then
  $as "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >initdb.log 2>&1
fi
for setting; do
  set -- "$@" -c "$setting"
  shift
done
exec $as "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 \
  -c unix_socket_directories="$folder" -c fsync=off "$@" >>log 2>&1
