CREATE TABLE r (w TIMESTAMP(3), most BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO r SELECT window_start, MAX(n) FROM (
  SELECT window_start, window_end, name, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end, name)
GROUP BY window_start, window_end;
