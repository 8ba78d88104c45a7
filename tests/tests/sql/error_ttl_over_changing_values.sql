SET 'table.exec.state.ttl' = '1 h';
CREATE TABLE out (n BIGINT, names BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out SELECT n, COUNT(DISTINCT name) FROM (SELECT name, COUNT(*) AS n FROM orders GROUP BY name) GROUP BY n;
