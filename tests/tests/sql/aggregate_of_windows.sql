CREATE TABLE peaks (name STRING, windows BIGINT, most BIGINT, spent DECIMAL(38, 2), spread DOUBLE, PRIMARY KEY (name) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO peaks
SELECT name, COUNT(*), MAX(n), SUM(spent), STDDEV_POP(CAST(n AS DOUBLE))
FROM (SELECT window_start, name, COUNT(*) AS n, SUM(price) AS spent
  FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, name)
WHERE n > 0
GROUP BY name;
