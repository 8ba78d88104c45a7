//! Scalar functions of ours: panes and their bounds, and the clock functions that read the recipe.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::clock::BatchClock;
use crate::window_assign::Bound;

/// `__pane` of an event-time expression: floor division, negative times too.
pub(crate) fn pane(time: Expr, size_micros: i64, offset_micros: i64) -> Expr {
    let function = Pane { size_micros, offset_micros, signature: Signature::any(1, Volatility::Immutable) };
    ScalarUDF::new_from_impl(function).call(vec![time])
}

/// A bound of the window whose number `pane` gives, as a timestamp of type `result`.
pub(crate) fn bound(pane: Expr, bound: Bound, size_micros: i64, offset_micros: i64, result: DataType) -> Expr {
    let signature = Signature::exact(vec![DataType::Int64], Volatility::Immutable);
    ScalarUDF::new_from_impl(PaneBound { bound, size_micros, offset_micros, result, signature }).call(vec![pane])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pane {
    size_micros: i64,
    offset_micros: i64,
    signature: Signature,
}

impl ScalarUDFImpl for Pane {
    fn name(&self) -> &'static str {
        "weir_pane"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let micros = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        let panes: Int64Array = micros.unary(|time| time.saturating_sub(self.offset_micros).div_euclid(self.size_micros));
        Ok(ColumnarValue::Array(Arc::new(panes)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PaneBound {
    bound: Bound,
    size_micros: i64,
    offset_micros: i64,
    result: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for PaneBound {
    fn name(&self) -> &'static str {
        "weir_window_bound"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let panes = args.args[0].to_array(args.number_rows)?;
        let (step, minus) = match self.bound {
            Bound::Start => (0, 0),
            Bound::End => (1, 0),
            // Flink's rowtime of a window: its last millisecond.
            Bound::Time => (1, 1_000),
        };
        let time = |pane: i64| {
            pane.saturating_add(step).saturating_mul(self.size_micros).saturating_add(self.offset_micros).saturating_sub(minus)
        };
        let micros: TimestampMicrosecondArray = panes.as_primitive::<Int64Type>().unary(time);
        Ok(ColumnarValue::Array(cast(&(Arc::new(micros) as ArrayRef), &self.result)?))
    }
}

/// `sum / count` cut to `result`, an integer type; NULL where nothing was counted.
pub(crate) fn integer_average(sum: Expr, count: Expr, result: DataType) -> Expr {
    let signature = Signature::exact(vec![DataType::Int64, DataType::Int64], Volatility::Immutable);
    ScalarUDF::new_from_impl(IntegerAverage { result, signature }).call(vec![sum, count])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntegerAverage {
    result: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for IntegerAverage {
    fn name(&self) -> &'static str {
        "weir_integer_average"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [sums, counts] = [0, 1].map(|argument| args.args[argument].to_array(args.number_rows));
        let (sums, counts) = (sums?, counts?);
        let pairs = sums.as_primitive::<Int64Type>().iter().zip(counts.as_primitive::<Int64Type>());
        let averages: Int64Array = pairs.map(|(sum, count)| sum?.checked_div(count?)).collect();
        Ok(ColumnarValue::Array(cast(&(Arc::new(averages) as ArrayRef), &self.result)?))
    }
}

/// Why the window fires that gives the row: `early`, `on-time` or `late`; see `cut::early`.
pub(crate) const FIRING: &str = "firing";

/// Stands in the query until the cut puts the operator's column in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FiringFunction(Signature);

/// `FIRING()`.
pub(crate) fn firing() -> ScalarUDF {
    ScalarUDF::new_from_impl(FiringFunction(Signature::nullary(Volatility::Volatile)))
}

impl ScalarUDFImpl for FiringFunction {
    fn name(&self) -> &'static str {
        FIRING
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion::common::internal_err!("FIRING() is replaced before a fragment runs")
    }
}

/// Clock functions by name, and what each returns.
pub(crate) fn clock_functions(clock: &BatchClock) -> Vec<ScalarUDF> {
    let utc = || Some(Arc::from("+00:00"));
    let instant = DataType::Timestamp(TimeUnit::Millisecond, utc());
    let local = DataType::Timestamp(TimeUnit::Millisecond, None);
    [
        ("now", instant.clone()),
        ("current_timestamp", instant.clone()),
        ("proctime", instant),
        ("localtimestamp", local),
        ("current_date", DataType::Date32),
        ("current_time", DataType::Time32(TimeUnit::Second)),
        ("localtime", DataType::Time32(TimeUnit::Second)),
        ("unix_timestamp", DataType::Int64),
    ]
    .into_iter()
    .map(|(name, result)| {
        let signature = Signature::nullary(Volatility::Volatile);
        ScalarUDF::new_from_impl(ClockFunction { name, result, clock: clock.clone(), signature })
    })
    .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    name: &'static str,
    result: DataType,
    clock: BatchClock,
    signature: Signature,
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now = self.clock.now_micros();
        let value = match self.result {
            DataType::Int64 => ScalarValue::Int64(Some(now.div_euclid(1_000_000))),
            _ => ScalarValue::TimestampMicrosecond(Some(now), None).cast_to(&self.result)?,
        };
        Ok(ColumnarValue::Scalar(value))
    }
}

/// Name of the function that refuses NULL.
pub(crate) const NOT_NULL: &str = "weir_not_null";

/// `value`, or an error that names the sink's column where it is NULL.
pub(crate) fn not_null(value: Expr, table: &str, column: &str) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let function = NotNull { place: format!("column {column} of {table} is NOT NULL"), signature };
    ScalarUDF::new_from_impl(function).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NotNull {
    place: String,
    signature: Signature,
}

impl ScalarUDFImpl for NotNull {
    fn name(&self) -> &str {
        NOT_NULL
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let nulls = match &args.args[0] {
            ColumnarValue::Array(array) => array.null_count(),
            ColumnarValue::Scalar(value) => {
                if value.is_null() {
                    args.number_rows
                } else {
                    0
                }
            }
        };
        if nulls > 0 {
            return datafusion::common::exec_err!("{}, and the query gives NULL for {nulls} rows of a batch", self.place);
        }
        Ok(args.args[0].clone())
    }
}
