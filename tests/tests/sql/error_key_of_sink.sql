CREATE TABLE out (id INT, n BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id, COUNT(*) FROM orders GROUP BY id;
