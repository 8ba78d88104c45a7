CREATE TABLE out (m DOUBLE) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT MEDIAN(score) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
