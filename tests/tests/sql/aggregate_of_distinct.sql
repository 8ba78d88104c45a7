CREATE TABLE cities (zips BIGINT, towns BIGINT, PRIMARY KEY (zips) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO cities
SELECT zips, COUNT(*) FROM (
  SELECT city, COUNT(zip) AS zips FROM (SELECT DISTINCT home.city AS city, home.place.zip AS zip FROM orders) GROUP BY city HAVING city IS NOT NULL)
GROUP BY zips HAVING COUNT(*) < 9;
