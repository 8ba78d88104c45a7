CREATE TABLE r (name STRING, most BIGINT, PRIMARY KEY (name) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO r SELECT name, MAX(n) FROM (
  SELECT window_start, window_end, name, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end, name)
GROUP BY name EMIT EVERY INTERVAL '1' SECOND;
