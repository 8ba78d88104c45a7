CREATE TABLE renamed (key STRING, name BIGINT, PRIMARY KEY (key) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO renamed SELECT name, COUNT(*) FROM orders GROUP BY name;
