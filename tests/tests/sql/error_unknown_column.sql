CREATE TABLE out (id INT) WITH ('connector' = 'blackhole');
INSERT INTO out
SELECT idd FROM orders;
