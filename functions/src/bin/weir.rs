//! The `weir` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the command's last word")]
fn main() -> ExitCode {
    match weir_functions::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", weir_functions::cli::told(&error));
            ExitCode::FAILURE
        }
    }
}
