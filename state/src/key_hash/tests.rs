use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, IntervalMonthDayNanoArray, NullArray, StringArray, Time32MillisecondArray, Time64NanosecondArray, UInt64Array,
};
use proptest::prelude::*;

use super::*;

const GROUPS: u16 = 720;

fn groups(columns: &[ArrayRef]) -> Vec<u16> {
    let mut out = Vec::new();
    key_groups(columns, columns[0].len(), GROUPS, &mut out).unwrap();
    out
}

/// Key groups by the definition, one value at a time.
fn defined<T>(values: &[Option<T>], write: impl Fn(&mut CanonicalKey, &T)) -> Vec<u16> {
    let group = |value: &Option<T>| {
        let mut key = CanonicalKey::default();
        match value {
            Some(value) => write(&mut key, value),
            None => key.null(),
        }
        KeyGroup::of(key.bytes(), GROUPS).0
    };
    values.iter().map(group).collect()
}

/// The same column in other encodings.
fn also_as(array: &ArrayRef, types: &[DataType]) -> Vec<Vec<u16>> {
    types.iter().map(|data_type| groups(&[cast(array, data_type).unwrap()])).collect()
}

fn dictionary(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(values))
}

proptest! {
    #[test]
    fn integers_of_all_widths_are_hashed_as_defined(values in prop::collection::vec(prop::option::of(any::<i8>()), 0..40)) {
        let wide: Vec<Option<i64>> = values.iter().map(|value| value.map(i64::from)).collect();
        let expected = defined(&wide, |key, value| key.integer(*value));
        let array: ArrayRef = Arc::new(Int8Array::from(values));
        for found in also_as(&array, &[DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64, dictionary(DataType::Int64)]) {
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn large_integers_are_hashed_as_defined(values in prop::collection::vec(any::<i64>(), 0..40)) {
        let some: Vec<Option<i64>> = values.iter().copied().map(Some).collect();
        prop_assert_eq!(groups(&[Arc::new(Int64Array::from(values.clone()))]), defined(&some, |key, value| key.integer(*value)));
        let unsigned: Vec<Option<u64>> = values.iter().map(|value| Some(value.cast_unsigned())).collect();
        prop_assert_eq!(groups(&[Arc::new(UInt64Array::from(unsigned.clone()))]), defined(&unsigned, |key, value| key.unsigned(*value)));
    }

    #[test]
    fn strings_of_all_encodings_are_hashed_as_defined(values in prop::collection::vec(prop::option::weighted(0.9, ".{0,20}"), 0..40)) {
        let expected = defined(&values, |key, value| key.string(value));
        let array: ArrayRef = Arc::new(StringArray::from(values));
        let types = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary(DataType::Utf8), dictionary(DataType::LargeUtf8)];
        for found in also_as(&array, &types) {
            prop_assert_eq!(&found, &expected);
        }
        // A slice does not start at its buffer's start.
        let half = array.len() / 2;
        prop_assert_eq!(groups(&[array.slice(half, array.len() - half)]), &expected[half..]);
    }

    #[test]
    fn instants_of_all_units_are_hashed_as_defined(values in prop::collection::vec(prop::option::weighted(0.9, -4_000_000_000i64..4_000_000_000), 0..40)) {
        let expected = defined(&values, |key, seconds| key.instant(i128::from(*seconds) * 1_000_000_000));
        let array: ArrayRef = cast(&Int64Array::from(values), &DataType::Timestamp(TimeUnit::Second, None)).unwrap();
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        for found in also_as(&array, &units.map(|unit| DataType::Timestamp(unit, Some("UTC".into())))) {
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn floats_and_decimals_are_hashed_as_defined(values in prop::collection::vec(prop::option::of(any::<f32>()), 0..40)) {
        let wide: Vec<Option<f64>> = values.iter().map(|value| value.map(f64::from)).collect();
        let expected = defined(&wide, |key, value| key.float(*value));
        prop_assert_eq!(groups(&[Arc::new(Float32Array::from(values.clone()))]), &expected[..]);
        prop_assert_eq!(groups(&[Arc::new(Float64Array::from(wide))]), expected);
        let unscaled: Vec<Option<i128>> = values.iter().map(|value| value.map(|value| i128::from(value.to_bits()))).collect();
        let decimals = Decimal128Array::from(unscaled.clone()).with_precision_and_scale(20, 3).unwrap();
        prop_assert_eq!(groups(&[Arc::new(decimals)]), defined(&unscaled, |key, value| key.decimal(*value, 3)));
    }

    #[test]
    fn a_key_of_several_columns_is_their_bytes_in_order(
        values in prop::collection::vec((prop::option::of(any::<i64>()), prop::option::of(".{0,5}"), any::<bool>()), 1..40)
    ) {
        let some: Vec<_> = values.iter().cloned().map(Some).collect();
        let expected = defined(&some, |key, (number, text, flag)| {
            match number { Some(number) => key.integer(*number), None => key.null() }
            match text { Some(text) => key.string(text), None => key.null() }
            key.boolean(*flag);
        });
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from_iter(values.iter().map(|(number, _, _)| *number))),
            Arc::new(StringArray::from_iter(values.iter().map(|(_, text, _)| text.as_deref()))),
            Arc::new(BooleanArray::from_iter(values.iter().map(|(_, _, flag)| Some(*flag)))),
        ];
        prop_assert_eq!(groups(&columns), expected);
    }
}

#[test]
fn the_other_types_are_hashed_as_defined() {
    let bytes = [Some(&b"ab"[..]), None, Some(&b""[..])];
    let expected = defined(&bytes, |key, value| key.binary(value));
    let array: ArrayRef = Arc::new(BinaryArray::from_iter(bytes));
    for found in also_as(&array, &[DataType::Binary, DataType::LargeBinary, DataType::BinaryView]) {
        assert_eq!(found, expected);
    }
    let days = [Some(-1), None, Some(20_000)];
    assert_eq!(groups(&[Arc::new(Date32Array::from(days.to_vec()))]), defined(&days, |key, value| key.date(*value)));
    let millis = [Some(5), None];
    let nanos = [Some(5_000_000i64), None];
    let expected = defined(&nanos, |key, value| key.time_of_day(*value));
    assert_eq!(groups(&[Arc::new(Time32MillisecondArray::from(millis.to_vec()))]), expected);
    assert_eq!(groups(&[Arc::new(Time64NanosecondArray::from(nanos.to_vec()))]), expected);
    assert_eq!(groups(&[Arc::new(NullArray::new(2))]), defined(&[None::<()>, None], |_, ()| ()));
}

/// Frozen for ever: a key that changes its group is a key whose state is lost.
#[test]
fn key_groups_are_frozen() {
    assert_eq!(groups(&[Arc::new(Int64Array::from(vec![0, 1, -1, i64::MAX]))]), [711, 66, 85, 306]);
    assert_eq!(groups(&[Arc::new(StringArray::from(vec!["song", "söng", "bidder-7"]))]), [106, 374, 357]);
    assert_eq!(groups(&[Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN]))]), [166, 166, 263]);
}

#[test]
fn a_key_of_no_columns_is_one_group() {
    let mut out = Vec::new();
    key_groups(&[], 3, GROUPS, &mut out).unwrap();
    assert!(out.len() == 3 && out.iter().all(|group| *group == out[0]));
}

#[test]
fn key_groups_are_appended_to_what_is_there() {
    let mut out = vec![9];
    key_groups(&[Arc::new(Int16Array::from(vec![1])) as ArrayRef], 1, GROUPS, &mut out).unwrap();
    key_groups(&[Arc::new(Int32Array::from(vec![1])) as ArrayRef], 1, GROUPS, &mut out).unwrap();
    assert!(out.len() == 3 && out[0] == 9 && out[1] == out[2]);
}

#[test]
fn a_type_without_canonical_bytes_is_refused() {
    let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::new_null(1));
    assert!(matches!(key_groups(&[intervals], 1, GROUPS, &mut Vec::new()), Err(StateError::KeyType(DataType::Interval(_)))));
}
