CREATE TABLE out (window_end TIMESTAMP(3), paid BOOLEAN, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_end, paid, COUNT(*)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, paid
EMIT EVERY INTERVAL '1' SECOND;
