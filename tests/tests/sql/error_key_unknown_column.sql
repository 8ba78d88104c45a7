CREATE TABLE out (id INT, n BIGINT, PRIMARY KEY (idd) NOT ENFORCED) WITH ('connector' = 'blackhole');
INSERT INTO out SELECT id, COUNT(*) FROM orders GROUP BY id;
