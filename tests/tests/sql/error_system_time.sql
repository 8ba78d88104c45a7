CREATE TABLE out (id INT) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT id FROM orders FOR SYSTEM_TIME AS OF etime;
