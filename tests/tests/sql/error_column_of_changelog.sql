CREATE TABLE out (id INT, epoch BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT id, COUNT(*) FROM orders GROUP BY id;
