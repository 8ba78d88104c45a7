CREATE TABLE spread (orders_of_name BIGINT, names BIGINT, named BIGINT, units BIGINT, mean DOUBLE, least DOUBLE, best DOUBLE, last_name STRING,
  prices BIGINT, all_paid BOOLEAN, any_paid BOOLEAN, PRIMARY KEY (orders_of_name) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO spread
SELECT n, COUNT(*), COUNT(name), SUM(units), AVG(score), MIN(score), MAX(score), MAX(name) FILTER (WHERE name <> 'Bo'), COUNT(DISTINCT price),
  BOOL_AND(paid > 0), BOOL_OR(paid > 0)
FROM (SELECT name, COUNT(*) AS n, SUM(units) AS units, MAX(score) AS score, MIN(price) AS price, COUNT(*) FILTER (WHERE paid) AS paid
  FROM orders GROUP BY name)
GROUP BY n;
