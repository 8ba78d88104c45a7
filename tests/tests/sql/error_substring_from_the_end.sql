CREATE TABLE out (m STRING) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT SUBSTRING(name, -2) FROM orders;
