CREATE TABLE out (id INT, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT id, COUNT(*) FROM orders GROUP BY id;
