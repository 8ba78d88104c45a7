CREATE TABLE out (a DOUBLE) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT price / 3 FROM orders;
