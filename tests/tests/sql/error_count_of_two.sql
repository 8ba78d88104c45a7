CREATE TABLE out (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT COUNT(id, name) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
