CREATE TABLE r (n BIGINT, s DOUBLE, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO r SELECT n, STDDEV_POP(score) FROM (SELECT name, COUNT(*) AS n, MAX(score) AS score FROM orders GROUP BY name) GROUP BY n;
