//! Differences for people: a row expected beside the most similar one that came, columns under columns.
//!
//! ```text
//! step 2, expect.hot
//! - {"song_id":1, "plays":2,  "score":1.0}
//! + {"song_id":1, "plays":12, "score":1.0}
//!   and 3 rows as expected
//! ```

use super::compare::Difference;

/// Rows shown of one place.
const ROWS_SHOWN_MAX: usize = 20;

/// All differences, place by place.
pub(super) fn show(differences: &[Difference]) -> String {
    differences.iter().map(shown).collect()
}

fn shown(difference: &Difference) -> String {
    let mut marked = paired(&difference.missing, &difference.surplus);
    let more = marked.len().saturating_sub(ROWS_SHOWN_MAX);
    marked.truncate(ROWS_SHOWN_MAX);
    let rows: Vec<&str> = marked.iter().map(|(_, row)| *row).collect();
    let mut text = format!("{}\n", difference.place);
    for ((mark, _), row) in marked.iter().zip(aligned(&rows)) {
        text += &format!("{mark} {row}\n");
    }
    if more > 0 {
        text += &format!("  and {more} more that differ\n");
    }
    if difference.same > 0 {
        text += &format!("  and {} {} as expected\n", difference.same, if difference.same == 1 { "row" } else { "rows" });
    }
    text
}

/// Each missing row with its mark, followed by the surplus row that is most like it.
fn paired<'a>(missing: &'a [String], surplus: &'a [String]) -> Vec<(char, &'a str)> {
    let mut left: Vec<&str> = surplus.iter().map(String::as_str).collect();
    let mut marked = Vec::new();
    for row in missing {
        marked.push(('-', row.as_str()));
        // Rows that have nothing in common are no pair.
        let likeness = |other: &str| cells(row).iter().zip(cells(other)).filter(|(a, b)| *a == b).count();
        let best = left.iter().enumerate().map(|(place, other)| (likeness(other), place)).max_by_key(|(likeness, place)| {
            let earlier = usize::MAX - place;
            (*likeness, earlier)
        });
        if let Some((1.., place)) = best {
            marked.push(('+', left.remove(place)));
        }
    }
    marked.extend(left.into_iter().map(|row| ('+', row)));
    marked
}

/// Columns of a row, as text: `"name":value`.
fn cells(row: &str) -> Vec<&str> {
    let inside = row.strip_prefix('{').and_then(|row| row.strip_suffix('}')).unwrap_or(row);
    let (mut cells, mut start, mut depth) = (Vec::new(), 0, 0usize);
    let (mut quoted, mut escaped) = (false, false);
    for (place, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                cells.push(&inside[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    cells.push(&inside[start..]);
    cells
}

/// Rows with their columns under each other, where all have as many.
fn aligned(rows: &[&str]) -> Vec<String> {
    let table: Vec<Vec<&str>> = rows.iter().map(|row| cells(row)).collect();
    let columns = table.first().map_or(0, Vec::len);
    if table.iter().any(|cells| cells.len() != columns) {
        return rows.iter().map(|row| (*row).to_owned()).collect();
    }
    let width = |column: usize| table.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    table.iter().map(|cells| joined(cells, &widths)).collect()
}

fn joined(cells: &[&str], widths: &[usize]) -> String {
    let mut text = "{".to_owned();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        text += cell;
        if column + 1 < cells.len() {
            text.push(',');
            text.extend(std::iter::repeat_n(' ', width + 1 - cell.chars().count()));
        }
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|row| (*row).to_owned()).collect()
    }

    #[test]
    fn a_row_stands_under_the_one_it_should_have_been() {
        let difference = Difference {
            place: "step 2, expect.hot".to_owned(),
            missing: rows(&["{\"song\":1,\"plays\":2}", "{\"song\":2,\"plays\":5}"]),
            surplus: rows(&["{\"song\":3,\"plays\":7}", "{\"song\":1,\"plays\":12}"]),
            same: 1,
        };
        let expected = "step 2, expect.hot\n\
                        - {\"song\":1, \"plays\":2}\n\
                        + {\"song\":1, \"plays\":12}\n\
                        - {\"song\":2, \"plays\":5}\n\
                        + {\"song\":3, \"plays\":7}\n  and 1 row as expected\n";
        assert_eq!(show(&[difference]), expected);
    }

    #[test]
    fn columns_end_at_commas_outside_of_texts_and_nested_values() {
        let row = "{\"a\":\"x,\\\"y}\",\"b\":{\"c\":1,\"d\":[1,2]},\"e\":null}";
        assert_eq!(cells(row), ["\"a\":\"x,\\\"y}\"", "\"b\":{\"c\":1,\"d\":[1,2]}", "\"e\":null"]);
    }
}
