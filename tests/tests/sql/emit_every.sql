CREATE TABLE out (window_start TIMESTAMP(3), paid BOOLEAN, n BIGINT, units BIGINT, why STRING, PRIMARY KEY (window_start, paid) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT window_start, paid, COUNT(*), SUM(units), UPPER(FIRING())
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, paid
EMIT EVERY INTERVAL '200' MILLISECOND;
