#!/usr/bin/env bash
# Proves every command in the `sh` blocks of the given file: the demo is started, on a free port instead
# of 8000, and what asks it is asked; the rest has to be a command that CI runs anyway.
set -euo pipefail
readme=$1
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
redis=${LARDER_TEST_REDIS:-redis://127.0.0.1:6379/0}
demo='' address=''

stop_demo() {
  [ -z "$demo" ] || { kill "$demo" && wait "$demo" || true; } 2>/dev/null
  demo=''
}
trap 'stop_demo; rm -rf "$scratch"' EXIT

refuse() {
  printf '%s: %s\n' "$readme" "$1" >&2
  exit 1
}

start_demo() {
  local command=$1
  # Flags of the demo follow `--`; cargo's own stay before it.
  case $command in *' -- '*) ;; *) command="$command --" ;; esac
  command=${command//redis:\/\/127.0.0.1:6379/${redis%/*}}
  stop_demo
  # Built first, so that the process started below is the demo and takes the signal that ends it.
  local build=${command%% -- *}
  build=${build/cargo run/cargo build}
  bash -c "${build% --}"
  : >"$scratch/out"
  bash -c "exec $command --listen 127.0.0.1:0" >"$scratch/out" 2>"$scratch/log" &
  demo=$!
  for _ in {1..300}; do
    address=$(sed -n 's|^demo: open http://\(.*\)/$|\1|p' "$scratch/out")
    [ -z "$address" ] || return 0
    kill -0 "$demo" 2>/dev/null || break
    sleep 0.1
  done
  cat "$scratch/log" >&2
  refuse "\`$1\` does not start"
}

commands=$(sed -n '/^```sh$/,/^```$/p' "$readme" | sed -e '/^```/d' -e 's/ *#.*//' -e '/^ *$/d')
[ -n "$commands" ] || refuse 'no command in it'

while IFS= read -r command <&3; do
  printf '    %s\n' "$command"
  case $command in
  'cargo run --release -p demo'*) start_demo "$command" ;;
  'curl '*)
    [ -n "$demo" ] || refuse "\`$command\` comes before the demo is started"
    bash -c "${command//127.0.0.1:8000/$address}" >"$scratch/answer" || refuse "\`$command\` fails"
    ;;
  './test') grep -q '/\.\./test"$' "$root/.ci/run" || refuse "CI does not run \`$command\`" ;;
  *) refuse "nothing proves \`$command\`" ;;
  esac
done 3<<<"$commands"
