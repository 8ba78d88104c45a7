//! `weir table create` and `weir table describe`: the coordination table in DynamoDB.

use clap::Subcommand;
use weir_coordinator::dynamodb::{Described, connect, create_table, describe};

use super::live::count;
use weir_seams::SystemClock;

/// What to do with a table.
#[derive(Debug, Subcommand)]
pub(super) enum TableCommand {
    /// Makes a table and waits until it can be used; adds the stream and the expiry that an existing one lacks
    ///
    /// Requests are paid one by one (on demand). Doing it again changes nothing.
    Create {
        /// Name of the table, or its address dynamodb://TABLE.
        table: String,
    },
    /// Shows a table, or says why it cannot be used
    Describe {
        /// Name of the table, or its address dynamodb://TABLE.
        table: String,
    },
}

/// Makes or describes a table and prints it.
pub(super) async fn table(command: &TableCommand) -> anyhow::Result<()> {
    let connection = connect(None).await?;
    let place = |table: &str| connection.place(table.strip_prefix("dynamodb://").unwrap_or(table));
    let described = match command {
        TableCommand::Create { table } => create_table(&connection.table, &place(table), &SystemClock::new()).await?,
        TableCommand::Describe { table } => describe(&connection.table, &place(table)).await?,
    };
    show(&described);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn show(described: &Described) {
    let paid = if described.on_demand { "on demand" } else { "by provisioned capacity" };
    println!("{}, paid {paid}", described.place);
    println!("  {} rows, {} bytes, as last counted by the service", count(described.items), count(described.bytes));
    println!("  stream {}", described.stream);
    println!("use it with --coordination dynamodb://{}", described.place.table);
}
