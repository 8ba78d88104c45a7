CREATE TABLE out (window_start TIMESTAMP(3), window_end TIMESTAMP(3), name STRING, many BIGINT, dear BIGINT, total DECIMAL(20, 2), mean DOUBLE, high DOUBLE, spread DOUBLE, all_paid BOOLEAN) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
CREATE VIEW named AS SELECT name, price, score, paid, etime FROM orders;
INSERT INTO out
SELECT window_start, window_end, name, COUNT(*), COUNT(*) FILTER (WHERE price > 5), SUM(price), AVG(score), MAX(score), STDDEV_POP(score), BOOL_AND(paid)
FROM TABLE(TUMBLE(TABLE named, DESCRIPTOR(etime), INTERVAL '10' SECONDS))
GROUP BY window_start, window_end, name;
