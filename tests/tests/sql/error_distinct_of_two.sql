CREATE TABLE out (n BIGINT) WITH ('connector' = 'print');
INSERT INTO out SELECT COUNT(DISTINCT id, name) FROM orders;
