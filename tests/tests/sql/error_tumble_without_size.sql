CREATE TABLE out (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT COUNT(*)
FROM TABLE(TUMBLE(DATA => TABLE orders, TIMECOL => DESCRIPTOR(etime), OFFSET => INTERVAL '3' SECOND)) GROUP BY window_start, window_end;
