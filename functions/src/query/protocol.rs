//! The PostgreSQL wire protocol in front of [`Questions`]: `psql`, Grafana and whatever else speaks it can ask.
//!
//! Each statement is answered as of a cut of its own. Statements about the session (SET, BEGIN, ..) are accepted and mean nothing, since
//! nothing can be written. Parameters (`$1`) are refused.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::noop::NoopStartupHandler;
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireServerHandlers, Type};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::Questions;
use crate::open::Opened;

/// Statements about a session or transaction, by their first word.
const SESSION: [&str; 8] = ["SET", "RESET", "BEGIN", "START", "COMMIT", "ROLLBACK", "END", "DISCARD"];

/// SQLSTATE of everything that is wrong with a statement: "syntax error or access rule violation".
const REFUSED: &str = "42000";

/// How long nobody is let in after a connection could not be accepted: there may be too many of them.
const RESTS: Duration = Duration::from_millis(100);

/// Serves connections for ever.
pub(crate) async fn serve(listener: TcpListener, opened: Opened, job: Option<String>) -> Infallible {
    let clock = Arc::clone(&opened.ctx.clock);
    let answers = Arc::new(Answers { opened, job, loading: Mutex::new(()) });
    let handlers = Arc::new(Handlers { answers });
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                clock.sleep(RESTS).await;
                continue;
            }
        };
        let handlers = Arc::clone(&handlers);
        tokio::spawn(async move {
            if let Err(error) = pgwire::tokio::process_socket(socket, None, handlers).await {
                tracing::info!(%peer, %error, "a connection ended");
            }
        });
    }
}

/// Whether everybody who can reach `address` is on this machine.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

#[derive(Debug)]
struct Answers {
    opened: Opened,
    job: Option<String>,
    /// Held while rows are read under a pin: this process has one pin for each job.
    loading: Mutex<()>,
}

impl Answers {
    /// Jobs as they are now: some may have been made since the last question.
    async fn questions(&self) -> PgWireResult<Questions> {
        Questions::open(self.opened.clone(), self.job.as_deref()).await.map_err(refused)
    }

    async fn ask(&self, sql: &str, format: &Format) -> PgWireResult<Response> {
        if is_of_session(sql) {
            return Ok(Response::Execution(Tag::new(&first_word(sql))));
        }
        let answer = {
            let _loading = self.loading.lock().await;
            self.questions().await?.ask(sql).await.map_err(refused)?
        };
        respond(answer, format).await
    }
}

async fn respond(answer: DataFrame, format: &Format) -> PgWireResult<Response> {
    let fields = Arc::new(arrow_schema_to_pg_fields(answer.schema().as_arrow(), format, None)?);
    let batches = answer.execute_stream().await.map_err(|error| refused(error.into()))?;
    let of_rows = Arc::clone(&fields);
    let rows = batches.flat_map(move |batch| {
        let rows: Vec<_> = match batch {
            Ok(batch) => encode_recordbatch(Arc::clone(&of_rows), batch).collect(),
            Err(error) => vec![Err(refused(error.into()))],
        };
        futures::stream::iter(rows)
    });
    Ok(Response::Query(QueryResponse::new(fields, rows)))
}

fn first_word(sql: &str) -> String {
    let word = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next();
    word.unwrap_or_default().to_ascii_uppercase()
}

fn is_of_session(sql: &str) -> bool {
    SESSION.contains(&first_word(sql).as_str())
}

fn refused(error: anyhow::Error) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), REFUSED.to_owned(), format!("{error:#}"))))
}

#[async_trait]
impl SimpleQueryHandler for Answers {
    async fn do_query<C>(&self, _client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + futures::Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as futures::Sink<PgWireBackendMessage>>::Error>,
    {
        Ok(vec![self.ask(query, &Format::UnifiedText).await?])
    }
}

/// A statement that was parsed: what it says, and the columns of its answer.
#[derive(Debug, Clone)]
struct Prepared {
    sql: String,
    columns: SchemaRef,
}

/// Plans statements without reading a row.
#[derive(Debug)]
struct Planner(Arc<Answers>);

#[async_trait]
impl QueryParser for Planner {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let columns = if is_of_session(sql) {
            SchemaRef::new(Schema::empty())
        } else {
            self.0.questions().await?.columns(sql).await.map_err(refused)?
        };
        Ok(Some(Prepared { sql: sql.to_owned(), columns }))
    }

    fn get_parameter_types(&self, _statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(Vec::new())
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        arrow_schema_to_pg_fields(&statement.columns, format.unwrap_or(&Format::UnifiedText), None)
    }
}

/// Prepared statements.
#[derive(Debug)]
struct Extended {
    answers: Arc<Answers>,
    planner: Arc<Planner>,
}

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Prepared;
    type QueryParser = Planner;

    fn query_parser(&self) -> Arc<Planner> {
        Arc::clone(&self.planner)
    }

    async fn do_query<C>(&self, _client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + futures::Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as futures::Sink<PgWireBackendMessage>>::Error>,
    {
        self.answers.ask(&portal.statement.statement.sql, &portal.result_column_format).await
    }
}

/// Nobody has to say who he is: only this machine is listened to.
#[derive(Debug)]
struct Welcome;

impl NoopStartupHandler for Welcome {}

#[derive(Debug)]
struct Handlers {
    answers: Arc<Answers>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.answers)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        let planner = Arc::new(Planner(Arc::clone(&self.answers)));
        Arc::new(Extended { answers: Arc::clone(&self.answers), planner })
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::new(Welcome)
    }
}
