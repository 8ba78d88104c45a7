//! `SET 'table.exec.state.ttl' = '1 h'`: how long a GROUP BY without a window remembers a key of which no row comes.
//!
//! Why a statement of the script and no setting of a run: it decides results, so it must be the same for every process and every replay.

use std::time::Duration;

use crate::PlanError;
use crate::duration;
use crate::job::{Grouping, Pipeline};

/// The statement's key.
pub(crate) const KEY: &str = "table.exec.state.ttl";

/// The time to live that `text` names; `None` for 0: keys are kept for ever.
///
/// # Errors
/// A sentence that names the text and the form expected.
pub(crate) fn parse(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("'{text}' is not a duration: write a whole number and a unit, as '1 h', '30 min' or '2 d'");
    let ttl = duration::parse(text).ok_or_else(invalid)?;
    if ttl > Duration::ZERO && ttl < Duration::from_millis(1) {
        return Err(format!("'{text}' is too short: at least 1 ms"));
    }
    Ok((!ttl.is_zero()).then_some(ttl))
}

/// Makes every GROUP BY without a window forget keys after `state_ttl`.
///
/// # Errors
/// [`PlanError`] where rows may be taken back from sets of values: a value that is forgotten could not go.
pub(crate) fn set(pipelines: &mut [Pipeline], state_ttl: Duration) -> Result<(), PlanError> {
    for pipeline in pipelines {
        for stage in &mut pipeline.aggregates {
            let Grouping::Updating { ttl, .. } = &mut stage.grouping else { continue };
            if stage.retracted.is_some() && !stage.sets.is_empty() {
                let message = format!(
                    "'{KEY}' with MIN, MAX or DISTINCT of results that change, for {}, is not supported",
                    pipeline.sink.name
                );
                return Err(PlanError::new(message).hint("leave it out, or write that INSERT as a job of its own"));
            }
            *ttl = Some(state_ttl);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_flink_writes_them() {
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3_600)));
        for text in ["1 h", "1h", " 60 min ", "3600 s", "3600000", "3600000 ms", "1 hour"] {
            assert_eq!(parse(text), hours(1), "{text}");
        }
        assert_eq!(parse("2 D"), hours(48));
        assert_eq!((parse("0"), parse("0 ms")), (Ok(None), Ok(None)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_form_expected() {
        for text in ["", "h", "1 fortnight", "-1 h", "1.5 h", "1 h 30 min", "99999999999 d", "10 us"] {
            assert!(parse(text).is_err_and(|message| message.contains(text)), "{text}");
        }
    }
}
