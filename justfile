# All that a commit needs, and all that CI runs: fmt, clippy, docs, each feature alone, the README's
# commands, tests against real servers
check:
    ./test

# The page that waits for a slow API, at http://127.0.0.1:8000/ (`just demo --help` lists the flags)
demo *flags:
    cargo run --release -p demo -- {{flags}}

# Ratios against peers; a word picks one: store, cache, file, sqlite, postgres, page, tags, hits, memcached
bench *which:
    cargo run --release -p bench -- {{which}}

# The README's table of stores: get, set and get_many of 100, each beside its bare driver
bench-stores:
    cargo run --release -p bench -- stores

# Spelling (`pip install typos`)
typos:
    typos
