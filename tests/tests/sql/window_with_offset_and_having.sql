CREATE TABLE out (window_start TIMESTAMP(3), units BIGINT, smallest STRING) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT window_start, SUM(units) AS units, MIN(name)
FROM TABLE(TUMBLE(DATA => TABLE orders, TIMECOL => DESCRIPTOR(etime), SIZE => INTERVAL '1' MINUTE, OFFSET => INTERVAL '5' SECOND))
WHERE units IS NOT NULL AND id <> 4
GROUP BY window_start, window_end
HAVING COUNT(*) > 1;
