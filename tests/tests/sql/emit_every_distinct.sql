CREATE TABLE out (w TIMESTAMP(3), paid BOOLEAN, names BIGINT, dear BIGINT, units BIGINT, PRIMARY KEY (w, paid) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_start, paid, COUNT(DISTINCT name), COUNT(DISTINCT name) FILTER (WHERE price > 2), SUM(DISTINCT units)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, paid
EMIT EVERY INTERVAL '1' SECOND;
