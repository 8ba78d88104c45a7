//! What compiles to what, and what is refused with which words.

use super::*;

const TABLES: &str = "
CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), day AS CAST(etime AS DATE),
  WATERMARK FOR etime AS etime - INTERVAL '5' SECOND) WITH ('connector' = 'plays');
CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE) WITH ('connector' = 'blackhole');
CREATE TABLE flat (song_id BIGINT, score DOUBLE) WITH ('connector' = 'blackhole');
CREATE TABLE kept (song_id BIGINT, score DOUBLE) WITH ('connector' = 'filesystem');
";

async fn compiled(insert: &str) -> Result<JobPlan, PlanError> {
    compile(&format!("{TABLES}{insert}")).await
}

async fn refusal(insert: &str) -> String {
    compiled(insert).await.expect_err("it must be refused").to_string()
}

const TUMBLE: &str = "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))";

#[tokio::test]
async fn the_example_becomes_a_windowed_pipeline() {
    let sql = format!(
        "INSERT INTO hot SELECT window_start, song_id, count(*), sum(play_score) FILTER (WHERE play_score > 1) {TUMBLE}
         GROUP BY window_start, window_end, song_id"
    );
    let plan = compiled(&sql).await.expect("it compiles");
    let pipeline = &plan.pipelines[0];
    let window = pipeline.aggregates.first().expect("a window");
    let emit = crate::Emit::default();
    assert_eq!(window.grouping, crate::Grouping::Tumble { size_micros: 10_000_000, offset_micros: 0, emit });
    assert_eq!(window.keys.iter().map(|key| key.name().as_str()).collect::<Vec<_>>(), ["song_id"]);
    assert_eq!(window.aggregates.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["plays", "score"]);
    assert!(window.aggregates[0].filter.is_none() && window.aggregates[1].filter.is_some());
    assert_eq!(pipeline.source.projection, [0, 2, 3], "user_id is not read");
    assert_eq!(pipeline.source.rowtime.as_ref().map(|rowtime| rowtime.delay_micros), Some(5_000_000));
    let text = crate::explain(&plan);
    assert!(text.contains("exchange    by key group of (song_id)") && text.contains("TUMBLE 10 s"), "{text}");
}

#[tokio::test]
async fn a_projection_needs_no_window_and_reads_only_its_columns() {
    let plan =
        compiled("INSERT INTO flat SELECT song_id, play_score * 2 FROM plays WHERE MOD(song_id, 3) = 0").await.expect("compiles");
    assert!(plan.pipelines[0].aggregates.is_empty());
    assert_eq!(plan.pipelines[0].source.projection, [0, 2]);
}

#[tokio::test]
async fn a_statement_set_is_one_pipeline_each() {
    let sql = "BEGIN STATEMENT SET; INSERT INTO flat SELECT song_id, play_score FROM plays;
               INSERT INTO flat (song_id) SELECT song_id FROM plays; END;";
    assert_eq!(compiled(sql).await.expect("compiles").pipelines.len(), 2);
}

#[tokio::test]
async fn what_nobody_plans_is_refused_with_what_to_write_instead() {
    for (insert, said) in [
        ("INSERT INTO kept SELECT song_id, sum(play_score) FROM plays GROUP BY song_id", "PRIMARY KEY (song_id) NOT ENFORCED"),
        ("INSERT INTO kept SELECT song_id % 2, sum(play_score) FROM plays GROUP BY song_id", "as it is"),
        (
            "INSERT INTO kept SELECT song_id, VAR_POP(n) FROM (SELECT song_id, CAST(count(*) AS DOUBLE) AS n FROM plays GROUP BY song_id)
             GROUP BY song_id",
            "VAR_POP of results that change",
        ),
        ("INSERT INTO flat SELECT song_id, play_score FROM plays ORDER BY song_id", "ORDER BY"),
        ("INSERT INTO flat SELECT song_id, play_score FROM plays LIMIT 3", "LIMIT"),
        ("INSERT INTO flat SELECT a.song_id, b.play_score FROM plays a JOIN plays b ON a.song_id = b.song_id", "joins"),
        ("INSERT INTO flat SELECT song_id, play_score FROM plays UNION ALL SELECT song_id, play_score FROM plays", "UNION"),
        ("INSERT INTO flat SELECT song_id, random() FROM plays", "replay"),
        ("INSERT INTO flat SELECT song_id, play_score FROM plays FOR SYSTEM_TIME AS OF etime", "SYSTEM_TIME"),
        ("INSERT INTO flat SELECT song_id, play_score, etime FROM plays", "3 columns"),
        ("INSERT INTO flat SELECT etime, play_score FROM plays", "to_unixtime"),
        ("INSERT INTO flatt SELECT song_id, play_score FROM plays", "did you mean flat?"),
        ("INSERT INTO flat SELECT song_id, play_score FROM playz", "did you mean plays?"),
        ("INSERT INTO flat SELECT song_id, today() FROM plays", "today"),
    ] {
        let refused = refusal(insert).await;
        assert!(refused.contains(said), "{insert}\n{refused}");
    }
}

#[tokio::test]
async fn window_queries_that_are_not_supported_are_refused() {
    for (columns, from, said) in [
        ("song_id, var_pop(user_id)", TUMBLE, "ambiguous"),
        ("song_id, corr(DISTINCT play_score, user_id)", TUMBLE, "CORR(DISTINCT ..) of several columns"),
        ("song_id, count(DISTINCT user_id, play_score)", TUMBLE, "COUNT(DISTINCT ..) of several columns"),
        ("song_id, median(play_score)", TUMBLE, "median"),
        (
            "song_id, sum(play_score)",
            "FROM TABLE(HOP(TABLE plays, DESCRIPTOR(etime), INTERVAL '5' SECOND, INTERVAL '10' SECOND))",
            "HOP",
        ),
        (
            "song_id, sum(play_score)",
            "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etim), INTERVAL '10' SECOND))",
            "did you mean etime?",
        ),
        ("song_id, sum(play_score)", "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(day), INTERVAL '10' SECOND))", "WATERMARK"),
        ("song_id, sum(play_score)", "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' MONTH))", "fixed length"),
    ] {
        let insert = format!("INSERT INTO flat SELECT {columns} {from} GROUP BY window_start, window_end, song_id");
        let refused = refusal(&insert).await;
        assert!(refused.contains(said), "{insert}\n{refused}");
    }
    let half =
        refusal(&format!("INSERT INTO flat SELECT song_id, sum(play_score) {TUMBLE} GROUP BY window_start, song_id")).await;
    assert!(half.contains("both window_start and window_end"), "{half}");
}

#[tokio::test]
async fn distinct_aggregates_of_one_value_share_a_set_and_its_conditions() {
    let sql = format!(
        "INSERT INTO hot SELECT window_start, song_id, count(DISTINCT user_id) FILTER (WHERE play_score > 1)
           + count(DISTINCT user_id) + sum(DISTINCT user_id) + count(*), sum(DISTINCT play_score) + max(DISTINCT play_score) {TUMBLE}
         GROUP BY window_start, window_end, song_id"
    );
    let plan = compiled(&sql).await.expect("it compiles");
    let stage = plan.pipelines[0].aggregates.first().expect("a window");
    let found: Vec<_> = stage.aggregates.iter().map(|a| (a.function.name(), a.distinct.map(|at| (at.set, at.bit)))).collect();
    let expected = [
        ("count", Some((0, 0))),
        ("count", Some((0, 1))),
        ("sum", Some((0, 1))),
        ("count", None),
        ("sum", Some((1, 0))),
        ("max", None),
    ];
    assert_eq!(found, expected, "the greatest of all is the greatest of the distinct ones");
    let conditions: Vec<Vec<bool>> = stage.sets.iter().map(|set| set.conditions.iter().map(Option::is_some).collect()).collect();
    assert_eq!(conditions, [vec![true, false], vec![false]]);
    assert_eq!(stage.sets.iter().map(|set| set.text.as_str()).collect::<Vec<_>>(), ["plays.user_id", "plays.play_score"]);
}

#[tokio::test]
async fn a_set_has_as_many_conditions_as_its_bits() {
    let calls = |count: usize| {
        let calls: Vec<String> = (0..count).map(|n| format!("count(DISTINCT user_id) FILTER (WHERE play_score > {n})")).collect();
        format!("INSERT INTO flat SELECT song_id, {} {TUMBLE} GROUP BY window_start, window_end, song_id", calls.join(" + "))
    };
    assert!(compiled(&calls(64)).await.is_ok());
    assert!(refusal(&calls(65)).await.contains("more than 64 conditions"));
}

#[tokio::test]
async fn a_typo_is_shown_with_its_line_and_a_caret() {
    let refused = refusal("INSERT INTO flat\nSELECT song_idd, play_score FROM plays").await;
    assert!(refused.contains("song_idd") && refused.contains("line 8, column 8") && refused.contains('^'), "{refused}");
    let type_error = compile("CREATE TABLE t (a BIGNIT) WITH ('connector' = 'plays')").await.expect_err("refused").to_string();
    assert!(type_error.contains("did you mean BIGINT?") && type_error.contains("line 1, column 19"), "{type_error}");
}

#[tokio::test]
async fn a_long_chain_of_guards_stays_as_long_as_it_was_and_a_deep_one_is_refused() {
    let chain: Vec<String> = (0..40).map(|n| format!("100 / (song_id + {n}) > 1")).collect();
    let sql = format!("INSERT INTO flat SELECT song_id, play_score FROM plays WHERE {}", chain.join(" AND "));
    let plan = compiled(&sql).await.expect("it compiles");
    let text = plan.pipelines[0].input.plan.display_indent().to_string();
    let written = text.matches(" / ").count();
    assert!((40..=80).contains(&written), "{written} divisions in the plan of 40");
    let deep =
        (0..30).fold("100 / song_id > 1".to_owned(), |inner, _| format!("song_id <> 0 AND (100 / song_id > 2 OR ({inner}))"));
    let refused = refusal(&format!("INSERT INTO flat SELECT song_id, play_score FROM plays WHERE {deep}")).await;
    assert!(refused.contains("nested too deeply"), "{refused}");
}

#[tokio::test]
async fn a_time_to_live_is_part_of_the_plan_of_what_is_updated() {
    let sql = |value: &str| {
        format!(
            "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays');
             CREATE TABLE counts (song_id BIGINT, plays BIGINT) WITH ('connector' = 'print');
             INSERT INTO counts SELECT song_id, COUNT(*) FROM plays GROUP BY song_id;
             SET 'table.exec.state.ttl' = '{value}';"
        )
    };
    let plan = compile(&sql("90 min")).await.expect("it compiles");
    let grouping = plan.pipelines[0].aggregates.first().expect("an aggregate").grouping;
    assert!(matches!(grouping, crate::Grouping::Updating { ttl: Some(ttl), .. } if ttl.as_secs() == 5_400), "{grouping:?}");
    assert!(crate::explain(&plan).contains("until no row of it has come for 90 min"), "{}", crate::explain(&plan));
    let forever = compile(&sql("0")).await.expect("it compiles");
    assert!(crate::explain(&forever).contains("for ever"), "{}", crate::explain(&forever));
    let refused = compile(&sql("soon")).await.expect_err("no duration").to_string();
    assert!(refused.contains("'soon' is not a duration"), "{refused}");
}
