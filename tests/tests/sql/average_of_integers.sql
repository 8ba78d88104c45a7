CREATE TABLE means (name STRING, ids INT, units BIGINT, many BIGINT, PRIMARY KEY (name) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO means
SELECT name, AVG(id), AVG(units) FILTER (WHERE units < 100), SUM(id) FROM orders GROUP BY name HAVING AVG(id) > 1;
