CREATE TABLE out (name STRING, units BIGINT) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
INSERT INTO out
WITH paid AS (SELECT name, units FROM orders WHERE paid), orders_of (who, many) AS (SELECT name, units FROM paid)
SELECT who, many FROM orders_of WHERE many < 100;
