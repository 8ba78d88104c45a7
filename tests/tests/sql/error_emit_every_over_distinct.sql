CREATE TABLE out (w TIMESTAMP(3), n BIGINT, PRIMARY KEY (w) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_start, COUNT(DISTINCT name)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end
EMIT EVERY INTERVAL '1' SECOND;
