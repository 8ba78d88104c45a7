SET 'table.exec.state.ttl' = '1 h';
CREATE TABLE out (paid BOOLEAN, n BIGINT, PRIMARY KEY (paid) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT paid, COUNT(DISTINCT name) FROM orders GROUP BY paid;
