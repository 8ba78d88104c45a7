CREATE TABLE often (city STRING, n BIGINT, PRIMARY KEY (city) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO often SELECT home.city, COUNT(*) FROM orders GROUP BY home.city HAVING COUNT(*) = 2 OR COUNT(*) = 3;
