CREATE TABLE out (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' SECOND))
WHERE etime < LOCALTIMESTAMP GROUP BY window_start, window_end;
