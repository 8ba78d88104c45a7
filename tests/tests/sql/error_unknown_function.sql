CREATE TABLE out (id STRING) WITH ('connector' = 'blackhole');
INSERT INTO out
SELECT UPPPER(name) FROM orders;
