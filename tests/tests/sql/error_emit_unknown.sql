CREATE TABLE out (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id FROM orders EMIT CHANGES;
