CREATE TABLE out (window_end TIMESTAMP(3), n BIGINT, why STRING) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
SELECT window_end, COUNT(*), FIRING()
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(etime), INTERVAL '10' SECOND))
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE;
