CREATE TABLE out (paid BOOLEAN, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT paid, COUNT(*) FROM orders GROUP BY paid EMIT CHANGES;
