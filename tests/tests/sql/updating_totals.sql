CREATE TABLE totals (name STRING, n BIGINT, units BIGINT, spent DECIMAL(38, 2), best DOUBLE, paid BIGINT, PRIMARY KEY (name) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO totals
SELECT name, COUNT(*), SUM(units) FILTER (WHERE units < 100), SUM(price), MAX(score), COUNT(*) FILTER (WHERE paid) FROM orders GROUP BY name;
