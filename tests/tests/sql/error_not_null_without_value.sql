CREATE TABLE out (id INT NOT NULL, name STRING) WITH ('connector' = 'blackhole');
INSERT INTO out (name) SELECT name FROM orders;
