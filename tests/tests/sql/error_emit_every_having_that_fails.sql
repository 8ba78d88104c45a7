CREATE TABLE out (window_end TIMESTAMP(3), n BIGINT, PRIMARY KEY (window_end) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_end, SUM(units) / COUNT(score)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end HAVING COUNT(score) > 0
EMIT EVERY INTERVAL '1' SECOND;
