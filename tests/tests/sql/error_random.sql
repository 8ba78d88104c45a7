CREATE TABLE out (id DOUBLE) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT RAND() FROM orders;
