//! The command `larder`.

use clap::Parser;

/// Larder, the caching framework for web apps
#[derive(Debug, Parser)]
#[command(name = "larder", version, arg_required_else_help = true)]
struct Larder {}

fn main() {
    Larder::parse();
}
