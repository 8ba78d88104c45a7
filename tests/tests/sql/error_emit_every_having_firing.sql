CREATE TABLE out (window_end TIMESTAMP(3), n BIGINT, PRIMARY KEY (window_end) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_end, n FROM (
  SELECT window_end, COUNT(*) AS n, FIRING() AS why
  FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end) WHERE why = 'late'
EMIT EVERY INTERVAL '1' SECOND;
