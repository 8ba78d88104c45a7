CREATE TABLE people (window_start TIMESTAMP(3), n BIGINT, names BIGINT, payers BIGINT, mean DOUBLE, odd BIGINT)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO people
SELECT window_start, COUNT(*), COUNT(DISTINCT name), COUNT(DISTINCT name) FILTER (WHERE paid AND score > 1), AVG(DISTINCT score),
  BIT_XOR(DISTINCT CAST(id / 2 AS BIGINT))
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;
