CREATE TABLE out (window_start TIMESTAMP(3), paid BOOLEAN, n BIGINT, why STRING, PRIMARY KEY (window_start, paid) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
CREATE VIEW counted AS
SELECT window_start, paid, COUNT(*) AS n, FIRING() AS why
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, paid;
INSERT INTO out SELECT * FROM counted WHERE n < 2 AND window_start < TIMESTAMP '2026-01-01 00:00:10' EMIT EVERY INTERVAL '1' SECOND;
