CREATE TABLE counts (n BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO counts SELECT DISTINCT COUNT(*) FROM orders GROUP BY name;
