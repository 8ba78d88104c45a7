CREATE TABLE out (id INT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id, COUNT(*) FROM orders GROUP BY id;
