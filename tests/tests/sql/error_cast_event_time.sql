CREATE TABLE out (n BIGINT) WITH ('connector' = 'blackhole');
CREATE VIEW by_day AS SELECT CAST(etime AS TIMESTAMP(0)) AS day, units FROM orders;
INSERT INTO out SELECT COUNT(*)
FROM TABLE(TUMBLE(TABLE by_day, DESCRIPTOR(day), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
