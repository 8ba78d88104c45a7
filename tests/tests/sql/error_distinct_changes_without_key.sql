CREATE TABLE counts (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO counts SELECT DISTINCT COUNT(*) FROM orders GROUP BY name;
