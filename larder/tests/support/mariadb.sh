#!/bin/sh
# Runs a MariaDB server in FOLDER on the loopback's PORT, as an unprivileged user where this is root;
# the database is `larder`, the user `larder` with the password `secret`. What is committed outlives the
# server, but not a power cut. Usage: mariadb.sh FOLDER PORT [ARGUMENT…]
set -eu
folder=$1 port=$2
shift 2
PATH=$PATH:/usr/sbin
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || {
  echo 'mariadb.sh: no `mariadbd`; hint: `apt-get install mariadb-server`' >&2
  exit 127
}
as=''
if [ "$(id -u)" = 0 ]; then
  chown mysql "$folder"
  as='setpriv --reuid=mysql --regid=mysql --clear-groups --'
fi
cd "$folder"
if [ ! -e data ]; then
  $as mariadb-install-db --no-defaults --datadir="$folder/data" --skip-test-db \
    --auth-root-authentication-method=normal >install.log 2>&1
  printf '%s\n' 'CREATE DATABASE IF NOT EXISTS larder;' \
    "CREATE USER IF NOT EXISTS larder@'%' IDENTIFIED BY 'secret';" \
    "GRANT ALL ON larder.* TO larder@'%';" >init.sql
  chmod a+r init.sql
fi
exec $as mariadbd --no-defaults --datadir="$folder/data" --port="$port" --bind-address=127.0.0.1 \
  --socket="$folder/sock" --pid-file="$folder/pid" --init-file="$folder/init.sql" \
  --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=2 --skip-name-resolve "$@" >>log 2>&1
