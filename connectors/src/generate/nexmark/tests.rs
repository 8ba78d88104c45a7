use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{concat_batches, filter, is_not_null};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use xxhash_rust::xxh3::xxh3_64;

use super::declared::Holds;
use super::*;
use crate::generate::testing::{Still, with};
use crate::source::Source;

const BIDS_0: Bids = Bids::new(0);
const TABLES: [Table; 4] = [Table::Events, Table::Flat(Kind::Person), Table::Flat(Kind::Auction), Table::Flat(Kind::Bid)];

fn generator(table: Table) -> Nexmark {
    Nexmark { house: House::new(0), table }
}

fn fields(kind: Kind) -> Fields {
    let field = |(name, holds): &(&str, Holds)| {
        let data_type = match holds {
            Holds::Number => DataType::Int64,
            Holds::Text => DataType::Utf8,
            Holds::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
        };
        Field::new(*name, data_type, true)
    };
    Fields::from(kind.fields().iter().map(field).collect::<Vec<_>>())
}

fn schema(table: Table) -> SchemaRef {
    let rows = Kind::ALL.map(|kind| Field::new(kind.name(), DataType::Struct(fields(kind)), true));
    let event_type = Field::new("event_type", DataType::Int32, true);
    Arc::new(match table {
        Table::Events => Schema::new([event_type].into_iter().chain(rows).collect::<Vec<_>>()),
        Table::Flat(kind) => Schema::new(fields(kind)),
    })
}

fn rows(table: Table, numbers: Range<u64>) -> RecordBatch {
    generator(table).rows(numbers, &[], &schema(table)).unwrap()
}

fn flat(kind: Kind, name: &str, numbers: Range<u64>) -> ArrayRef {
    Arc::clone(rows(Table::Flat(kind), numbers).column_by_name(name).unwrap())
}

fn numbers(column: &ArrayRef) -> &[i64] {
    column.as_primitive::<Int64Type>().values()
}

fn millis(column: &ArrayRef) -> &[i64] {
    column.as_primitive::<TimestampMillisecondType>().values()
}

/// Bytes of the texts, and eight for each other value.
fn bytes(column: &ArrayRef) -> usize {
    column.as_string_opt::<i32>().map_or(column.len() * 8, |texts| texts.iter().flatten().map(str::len).sum())
}

fn open(pairs: &[(&str, &str)], columns: Fields) -> Result<NexmarkSource, OptionsError> {
    let options = with(pairs);
    let options = TableOptions { table: "t", options: &options };
    NexmarkSource::new(options, Arc::new(Schema::new(columns)), Arc::new(Still(0)))
}

fn refusal(pairs: &[(&str, &str)], columns: Fields) -> String {
    open(pairs, columns).unwrap_err().to_string()
}

#[test]
fn a_range_is_the_concatenation_of_its_parts_in_every_table() {
    for table in TABLES {
        let parts = [0..1, 1..7, 7..130, 130..500].map(|part| rows(table, part));
        assert_eq!(concat_batches(&schema(table), &parts).unwrap(), rows(table, 0..500), "{table:?}");
    }
}

#[test]
fn of_50_events_one_is_a_person_and_three_are_auctions() {
    let events = rows(Table::Events, 0..100_000);
    let types = events.column(0).as_primitive::<Int32Type>().values();
    let count = |kind: i32| types.iter().filter(|event_type| **event_type == kind).count();
    assert_eq!([count(0), count(1), count(2)], [2_000, 6_000, 92_000]);
    assert_eq!(types[..6], [0, 1, 1, 1, 2, 2]);
}

#[test]
fn an_event_is_the_row_of_its_kinds_flat_table_and_null_in_the_others() {
    for events in [0..1_000, 49..50, 12_345..13_001] {
        let combined = rows(Table::Events, events.clone());
        let types = combined.column(0).as_primitive::<Int32Type>().values().to_vec();
        for (kind, event_type) in Kind::ALL.into_iter().zip(0..) {
            let column = combined.column_by_name(kind.name()).unwrap();
            let there = is_not_null(column).unwrap();
            assert!(types.iter().enumerate().all(|(row, of)| there.value(row) == (*of == event_type)), "{kind:?}");
            let found = filter(column, &there).unwrap();
            let expected = rows(Table::Flat(kind), kind.among(events.start)..kind.among(events.end));
            for (found, field) in found.as_struct().columns().iter().zip(expected.schema().fields()) {
                assert_eq!(found, expected.column_by_name(field.name()).unwrap(), "{kind:?} {}", field.name());
            }
        }
    }
}

#[test]
fn numbers_and_events_lead_to_each_other() {
    for kind in Kind::ALL {
        assert!((0..1_000).all(|number| kind.among(kind.event(number)) == number), "{kind:?}");
        assert!((0..1_000).all(|number| kind.among(kind.event(number) + 1) == number + 1), "{kind:?}");
    }
    let all = |events| Kind::ALL.into_iter().map(|kind| kind.among(events)).sum::<u64>();
    assert!((0..200).all(|events| all(events) == events));
}

#[test]
fn times_and_ids_follow_from_numbers() {
    assert_eq!(numbers(&flat(Kind::Person, "id", 0..3)), [1_000, 1_001, 1_002]);
    assert_eq!(numbers(&flat(Kind::Auction, "id", 5..7)), [1_005, 1_006]);
    let base = i64::try_from(BASE_TIME_MILLIS).unwrap();
    assert_eq!(millis(&flat(Kind::Person, "dateTime", 0..3)), [base, base + 5, base + 10]);
}

#[test]
fn half_of_the_bids_go_to_hot_auctions_and_most_come_from_hot_bidders() {
    let count = |name: &str, hot: i64| {
        let ids = flat(Kind::Bid, name, 100_000..200_000);
        numbers(&ids).iter().filter(|id| **id % 100 == hot).count()
    };
    let hot_auctions = count("auction", 0);
    assert!((50_000..53_000).contains(&hot_auctions), "{hot_auctions}");
    let hot_bidders = count("bidder", 1);
    assert!((74_000..78_000).contains(&hot_bidders), "{hot_bidders}");
}

#[test]
fn most_auctions_are_the_hot_sellers_and_every_seller_has_registered_before() {
    let sellers = flat(Kind::Auction, "seller", 0..40_000);
    let hot = numbers(&sellers).iter().filter(|id| **id % 100 == 0).count();
    assert!((29_500..31_500).contains(&hot), "{hot}");
    for (auction, seller) in (0..).zip(numbers(&sellers)) {
        let person = u64::try_from(*seller - 1_000).unwrap();
        assert!(Kind::Person.event(person) < Kind::Auction.event(auction), "auction {auction} of person {person}");
    }
}

#[test]
fn an_auction_closes_on_average_when_a_hundred_more_have_opened() {
    let (opened, closed) = (flat(Kind::Auction, "dateTime", 0..10_000), flat(Kind::Auction, "expires", 0..10_000));
    let lengths: Vec<i64> = millis(&closed).iter().zip(millis(&opened)).map(|(closed, opened)| closed - opened).collect();
    assert!(lengths.iter().all(|length| (1..=2 * 167).contains(length)));
    let average = lengths.iter().sum::<i64>() / 10_000;
    assert!((160..175).contains(&average), "{average}");
}

#[test]
fn reserves_lie_above_initial_bids_and_categories_are_five() {
    let (initial, reserve) = (flat(Kind::Auction, "initialBid", 0..1_000), flat(Kind::Auction, "reserve", 0..1_000));
    let prices = 100..=100_000_000;
    assert!(numbers(&initial).iter().all(|price| prices.contains(price)));
    assert!(numbers(&reserve).iter().zip(numbers(&initial)).all(|(reserve, initial)| prices.contains(&(reserve - initial))));
    let categories = flat(Kind::Auction, "category", 0..1_000);
    assert!((10..15).all(|category| numbers(&categories).contains(&category)));
    assert!(numbers(&categories).iter().all(|category| (10..15).contains(category)));
}

#[test]
fn persons_take_200_and_auctions_500_bytes_on_average() {
    for (kind, expected) in [(Kind::Person, 200), (Kind::Auction, 500)] {
        let rows = rows(Table::Flat(kind), 0..10_000);
        let average = rows.columns().iter().map(bytes).sum::<usize>() / 10_000;
        assert!((expected - 3..=expected + 3).contains(&average), "{kind:?}: {average}");
    }
}

#[test]
fn persons_have_names_addresses_and_cards_of_the_published_form() {
    let persons = rows(Table::Flat(Kind::Person), 0..1_000);
    let all = |name: &str, form: &str| {
        let form = regex::Regex::new(form).unwrap();
        let texts = persons.column_by_name(name).unwrap().as_string::<i32>();
        assert!(texts.iter().flatten().all(|text| form.is_match(text)), "{name}: {:?}", texts.value(0));
    };
    all("name", "^(Peter|Paul|Luke|John|Saul|Vicky|Kate|Julie|Sarah|Deiter|Walter) [A-Z][a-z]+$");
    all("emailAddress", r"^[a-z]+@[a-z]+\.com$");
    all("creditCard", "^[0-9]{4} [0-9]{4} [0-9]{4} [0-9]{4}$");
    all("state", "^(AZ|CA|ID|OR|WA|WY)$");
}

#[test]
fn only_declared_columns_and_fields_are_made_in_their_declared_types() {
    let price = Field::new("price", DataType::Decimal128(12, 2), true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true);
    let bid = Field::new("bid", DataType::Struct(Fields::from(vec![time, price])), true);
    let schema: SchemaRef = Arc::new(Schema::new(vec![bid]));
    let made = generator(Table::Events).rows(0..100, &[3], &schema).unwrap();
    assert_eq!((made.schema(), made.num_rows()), (schema, 100));
    let bids = made.column(0).as_struct();
    assert_eq!(bids.null_count(), 8);
    assert_eq!(bids.column(1).null_count(), 8);
}

#[test]
fn a_batch_without_columns_still_counts_its_rows() {
    for table in TABLES {
        let nothing: SchemaRef = Arc::new(Schema::empty());
        assert_eq!(generator(table).rows(3..20, &[], &nothing).unwrap().num_rows(), 17);
    }
}

#[test]
fn unknown_columns_fields_and_types_are_named_with_the_known() {
    let one = |name: &str, data_type: DataType| Fields::from(vec![Field::new(name, data_type, true)]);
    let bid = [("connector", "nexmark"), ("nexmark.table", "bid")];
    assert_eq!(
        refusal(&bid, one("prize", DataType::Int64)),
        "table t: column prize is not one of a bid's: auction, bidder, price, channel, url, dateTime, extra"
    );
    assert_eq!(
        refusal(&bid, one("price", DataType::Boolean)),
        "table t: column price cannot be Boolean: declare it as BIGINT or another type of numbers"
    );
    let combined = [("connector", "nexmark")];
    let flat = refusal(&combined, one("price", DataType::Int64));
    assert!(flat.contains("column price is not one of an event's: event_type, person, auction, bid"), "{flat}");
    assert!(flat.contains("set 'nexmark.table' to 'person', 'auction' or 'bid'"), "{flat}");
    let nested = refusal(&combined, one("person", DataType::Struct(one("emial", DataType::Utf8))));
    assert!(nested.contains("column person.emial is not one of a person's: id, name, emailAddress"), "{nested}");
    let number = refusal(&combined, one("auction", DataType::Int64));
    assert!(number.contains("column auction cannot be Int64: declare it as ROW<..> of an auction's fields"), "{number}");
}

#[test]
fn unknown_options_and_tables_are_refused_with_the_nearest() {
    let table = refusal(&[("nexmark.table", "bids")], Fields::empty());
    assert_eq!(table, "table t: 'nexmark.table' = 'bids' is unknown: did you mean 'bid'?");
    let option = refusal(&[("nexmark.bid.proportion", "46")], Fields::empty());
    assert!(option.contains("unknown option 'nexmark.bid.proportion'"), "{option}");
}

#[test]
fn a_source_says_what_it_makes_and_whether_it_ends() {
    let million = open(&[("nexmark.table", "bid"), ("events.num", "1_000_000")], fields(Kind::Bid)).unwrap();
    assert_eq!(million.describe(), "nexmark bids, 1,000,000 events, seed 0");
    assert!(million.bounded());
    assert_eq!(million.total, Some(920_000));
    let paced = open(&[("rows-per-second", "5000"), ("seed", "7")], Fields::empty()).unwrap();
    assert_eq!(paced.describe(), "nexmark events, without end, seed 7, 5,000 rows per second");
    assert!(!paced.bounded());
}

#[test]
fn the_first_bids_never_change() {
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true);
    let columns = vec![number("auction"), number("bidder"), number("price"), text("channel"), text("url"), text("extra"), time];
    let schema: SchemaRef = Arc::new(Schema::new(columns));
    let rows = BIDS_0.rows(0..10_000, &[], &schema).unwrap();
    let text = crate::encode::encode(crate::files::Format::Json, &schema, &[rows]).unwrap();
    assert_eq!(xxh3_64(&text), GOLDEN, "the generator changed: results of old jobs could not be replayed");
}

const GOLDEN: u64 = 10_704_478_861_994_426_634;
