CREATE TABLE most (n BIGINT, name STRING, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO most SELECT n, MAX(who) FROM (SELECT name AS who, COUNT(*) AS n, SUM(units) AS name FROM orders GROUP BY name) WHERE name > 0 GROUP BY n;
