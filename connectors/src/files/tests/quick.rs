//! The quick decoders against Arrow's: what they take, they read the same; what they decline costs nothing but time.

use proptest::prelude::*;

use super::super::csv::CsvDecoder;
use super::super::decode::{RowDecoder, TextOptions};
use super::super::json::JsonDecoder;
use super::super::lines::{Framing, records};
use super::*;

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("s", DataType::Int16, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("t", DataType::Utf8, true),
        Field::new("m", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("u", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
    ]))
}

fn text_options() -> TextOptions {
    let options = BTreeMap::new();
    TextOptions::new(TableOptions { table: "t", options: &options }).unwrap()
}

/// A value in one of the forms it is seen in, from plain to odd to wrong.
fn json_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<i64>().prop_map(|value| value.to_string()),
        4 => (-40_000i32..40_000).prop_map(|value| value.to_string()),
        4 => any::<f64>().prop_filter("JSON has no others", |value| value.is_finite()).prop_map(|value| format!("{value:?}")),
        2 => "-?[0-9]{1,3}\\.[0-9]{1,6}(e-?[0-9]{1,2})?",
        4 => "\"[ -!#-\\[\\]-~äß€]{0,12}\"",
        3 => "\"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z?\"",
        2 => prop::sample::select(vec!["true", "false", "null", "{}", "[1]", "\"\\u00e4\\n\"", "01", "-", "1.", "1e999", "nul", "\"12\"", "\"\\", ""])
            .prop_map(str::to_owned),
    ]
}

/// A line of some fields, mostly in one order, with blanks here and there.
fn json_line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["i", "s", "f", "b", "t", "m", "u", "other", "i\\u0020"]);
    let field = (name, json_value(), prop::sample::select(vec!["", "", "", " ", "\t"]));
    let tail = prop::sample::select(vec!["}", "}", "}", "} ", "", "}}", ",}", "}{}"]);
    (prop::collection::vec(field, 0..8), tail).prop_map(|(fields, tail)| {
        let fields: Vec<String> =
            fields.iter().map(|(name, value, blank)| format!("{blank}\"{name}\"{blank}:{blank}{value}{blank}")).collect();
        format!("{{{}{tail}", fields.join(","))
    })
}

fn csv_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<i64>().prop_map(|value| value.to_string()),
        4 => (-40_000i32..40_000).prop_map(|value| value.to_string()),
        3 => any::<f64>().prop_map(|value| value.to_string()),
        4 => "[ -!#-+\\--~äß]{0,10}",
        3 => "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z?",
        3 => prop::sample::select(vec!["true", "false", "TRUE", "", "", "\"q\"", "\"a,b\"", "007", "+1", "NaN", "a\rb", "\"open"]).prop_map(str::to_owned),
    ]
}

/// Both decoders on single lines and on all lines together.
fn compare(quick: &mut dyn RowDecoder, thorough: &mut dyn RowDecoder, block: &str) {
    let block = block.as_bytes();
    let records = records(block, Framing::Lines);
    for record in records.iter().map(std::slice::from_ref).chain([records.as_slice()]).filter(|records| !records.is_empty()) {
        let (by_quick, by_arrow) = (quick.decode(block, record), thorough.decode(block, record));
        let shown = || String::from_utf8_lossy(&block[record[0].start..record[record.len() - 1].end]).into_owned();
        assert_eq!(by_quick, by_arrow, "{}", shown());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn json_is_read_as_by_arrow(lines in prop::collection::vec(json_line(), 1..5), wanted in prop::sample::subsequence(vec![0, 1, 2, 3, 4, 5, 6], 0..=7)) {
        let (schema, text) = (columns(), text_options());
        let mut quick = JsonDecoder::new(&schema, &wanted, &text).unwrap();
        let mut thorough = JsonDecoder::thorough(&schema, &wanted, &text).unwrap();
        compare(&mut quick, &mut thorough, &lines.join("\n"));
    }

    #[test]
    fn csv_is_read_as_by_arrow(
        lines in prop::collection::vec(prop::collection::vec(csv_value(), 6..=8), 1..5),
        wanted in prop::sample::subsequence(vec![0, 1, 2, 3, 4, 5, 6], 0..=7),
    ) {
        let (schema, text) = (columns(), text_options());
        let mut quick = CsvDecoder::new(&schema, &wanted, &text).unwrap();
        let mut thorough = CsvDecoder::thorough(&schema, &wanted, &text).unwrap();
        let lines: Vec<String> = lines.iter().map(|values| values.join(",")).collect();
        compare(&mut quick, &mut thorough, &format!("{}\n", lines.join("\n")));
    }
}

#[test]
fn typed_values_that_fit_are_taken_quickly_and_others_declined() {
    use super::super::flat_json::FlatJson;
    let mut flat = FlatJson::new(&columns()).unwrap();
    let mut takes = |line: &str| flat.decode(line.as_bytes(), std::slice::from_ref(&(0..line.len()))).is_some();
    assert!(takes("{\"i\":-5,\"s\":3,\"f\":0.5,\"b\":true,\"t\":\"x\",\"m\":\"2020-02-29 01:02:03.5\",\"u\":null}"));
    assert!(takes("{\"i\":1}"));
    assert!(takes("{}"));
    for odd in
        ["{\"i\":1,\"i\":2}", "{\"s\":40000}", "{\"t\":\"\\n\"}", "{\"other\":{}}", "{\"i\":1.0}", "{\"i\":1} x", "{\"i\":1"]
    {
        assert!(!takes(odd), "{odd}");
    }
}
