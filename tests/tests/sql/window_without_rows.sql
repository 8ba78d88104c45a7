CREATE TABLE out (window_start TIMESTAMP(3), units BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT window_start, SUM(units) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' DAY)) WHERE 1 = 2 GROUP BY window_start, window_end;
