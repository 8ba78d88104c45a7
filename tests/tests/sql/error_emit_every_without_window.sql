CREATE TABLE out (paid BOOLEAN, n BIGINT, PRIMARY KEY (paid) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT paid, COUNT(*) FROM orders GROUP BY paid EMIT EVERY INTERVAL '1' SECOND;
