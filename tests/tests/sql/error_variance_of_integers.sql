CREATE TABLE out (a DOUBLE) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT VAR_POP(units) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
