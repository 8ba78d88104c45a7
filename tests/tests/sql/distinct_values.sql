CREATE TABLE people (
  city STRING, n BIGINT, names BIGINT, payers BIGINT, scores BIGINT, units DECIMAL(38, 0), mean_id INT, best DOUBLE, prices BIGINT, hours BIGINT,
  PRIMARY KEY (city) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO people
SELECT home.city, COUNT(*), COUNT(DISTINCT name), COUNT(DISTINCT name) FILTER (WHERE paid), COUNT(DISTINCT score * 0),
  SUM(DISTINCT CAST(units AS DECIMAL(20, 0))), AVG(DISTINCT MOD(id, 4)), MAX(DISTINCT score), COUNT(DISTINCT price) FILTER (WHERE price > 0),
  COUNT(DISTINCT hour_of)
FROM orders GROUP BY home.city;
