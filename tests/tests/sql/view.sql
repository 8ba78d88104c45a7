CREATE TABLE out (name STRING, price DECIMAL(10, 2)) WITH ('connector' = 'filesystem', 'path' = '${output}', 'format' = 'json');
CREATE VIEW dear (who, cost, at) AS SELECT name, price, etime FROM orders WHERE price > 5;
INSERT INTO out SELECT who, cost FROM dear;
