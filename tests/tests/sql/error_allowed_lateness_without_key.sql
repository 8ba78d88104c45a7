CREATE TABLE clicks (n BIGINT, t TIMESTAMP(3), WATERMARK FOR t AS t) WITH ('connector' = 'datagen', 'allowed-lateness' = '30 s');
CREATE TABLE out (window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(t), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;
