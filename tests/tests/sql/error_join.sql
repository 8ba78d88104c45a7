CREATE TABLE out (id INT) WITH ('connector' = 'blackhole');
INSERT INTO out
SELECT a.id FROM orders AS a
JOIN orders AS b ON a.id = b.id;
